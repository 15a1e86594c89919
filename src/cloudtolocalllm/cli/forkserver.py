"""``cloudtolocalllm proxy-forkserver``: forks proxies for the manager, which starts it and speaks on its input."""

import dataclasses
import gc
import importlib
import os
import sys
from typing import Any

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.proxy import service
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.runtime import forkserver, logs

LATER = ("uvloop", "asyncio.base_events", "asyncio.unix_events", "encodings.idna", "encodings.latin_1")
"""Modules that a proxy would otherwise import after the fork, each into memory of its own."""


def main() -> int:
    """Serve until the manager closes the connection; return the exit status."""
    logs.configure("forkserver", stream=sys.stderr)
    try:
        control = forkserver.control_socket()
    except OSError:
        sys.stderr.write(
            "cloudtolocalllm proxy-forkserver: expected a socket as standard input; the manager runs it\n"
        )
        return 2
    forkserver.run(control, _preload, _proxy, name="c2l-proxy")
    return 0


def settings_of(args: dict[str, Any]) -> ProxySettings:
    """Return a proxy's settings from the manager's words."""
    known = {field.name for field in dataclasses.fields(ProxySettings)}
    values = {name: value for name, value in args.items() if name in known}
    values["key"] = bytes.fromhex(values["key"])
    values["listen"] = Endpoint.parse(values["listen"])
    return ProxySettings(**values)


def _preload() -> None:
    for name in LATER:
        importlib.import_module(name)
    gc.collect()


def _proxy(args: dict[str, Any]) -> None:
    service.main(settings_of(args))


if __name__ == "__main__":
    os._exit(main())
