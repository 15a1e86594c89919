"""Renders nginx's configuration, and runs nginx, from the environment."""

import argparse
import sys

from cloudtolocalllm.edge import settings as edge_settings
from cloudtolocalllm.edge.nginx import settings as nginx_settings
from cloudtolocalllm.edge.nginx.service import NginxError, serve
from cloudtolocalllm.edge.nginx.state import prepare, write
from cloudtolocalllm.edge.nginx.text import RenderError
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime import lifecycle, logs
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.settings import SettingsError, environment, load

NginxSettings = nginx_settings.NginxSettings


def nginx_render(options: argparse.Namespace) -> int:
    """Write the configuration, and what it refers to in the state folder."""
    found = _settings()
    if found is None:
        return 2
    edge, nginx = found
    try:
        prepare(edge, nginx, SystemClock())
        write(options.output.absolute(), edge, nginx)
    except RenderError as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(f"could not write {error.filename}: {error.strerror}", 1)
    return 0


def nginx_run(_: argparse.Namespace) -> int:
    """Run nginx until this process is told to stop."""
    found = _settings()
    if found is None:
        return 2
    edge, nginx = found
    logs.configure("nginx", level=environment().get("C2L_LOG_LEVEL", "INFO").upper())
    try:
        lifecycle.run(lambda stop: serve(edge, nginx, stop))
    except RenderError as error:
        return _fail(error, 2)
    except NginxError as error:
        return _fail(error, 1)
    except FileNotFoundError as error:
        return _fail(f"expected the program nginx, got none ({error.filename})", 1)
    return 0


def _settings() -> tuple[EdgeSettings, NginxSettings] | None:
    environ = environment()
    faults, loaded = [], []
    for cls, prefix in ((EdgeSettings, edge_settings.PREFIX), (NginxSettings, nginx_settings.PREFIX)):
        try:
            loaded.append(load(cls, prefix, environ))
        except SettingsError as error:
            faults.append(str(error))
    if faults:
        _fail("\n".join(faults), 2)
        return None
    edge, nginx = loaded
    assert isinstance(edge, EdgeSettings)  # noqa: S101 - loaded in this order
    assert isinstance(nginx, NginxSettings)  # noqa: S101 - loaded in this order
    return edge, nginx


def _fail(reason: object, status: int) -> int:
    sys.stderr.write(f"cloudtolocalllm nginx: {reason}\n")
    return status
