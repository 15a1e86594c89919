"""Runs one service from its environment, as the containers and `up` do."""

import importlib
import sys
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.runtime import lifecycle, logs
from cloudtolocalllm.runtime.settings import SettingsError, environment, load


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service's parts are; imported only when it runs, so that none pays for another's imports."""

    room: str
    settings: str
    """Name of the settings class in `ROOM.settings`."""
    prefix: str
    """Of its environment variables."""


SERVICES = {
    "api": Service("api", "ApiSettings", "C2L_API_"),
    "manager": Service("manager", "ManagerSettings", "C2L_MANAGER_"),
    "edge": Service("edge", "EdgeSettings", "C2L_EDGE_"),
    "nginx": Service("edge.nginx", "NginxSettings", "C2L_NGINX_"),  # beside those of the edge
    "web": Service("edge.web", "WebSettings", "C2L_WEB_"),
    "certs": Service("certs", "CertsSettings", "C2L_CERTS_"),
    "bridge": Service("bridge", "BridgeSettings", "C2L_BRIDGE_"),
    "connect": Service("connect", "ConnectSettings", "C2L_CONNECT_"),
    "demo-engine": Service("demo", "DemoSettings", "C2L_DEMO_"),
    "proxy": Service("proxy", "ProxySettings", "C2L_PROXY_"),
}


def settings_class(service: Service) -> type[Any]:
    """Return a service's settings class."""
    module = importlib.import_module(f"cloudtolocalllm.{service.room}.settings")
    cls: type[Any] = getattr(module, service.settings)
    return cls


def run_service(name: str, overrides: dict[str, str] | None = None) -> int:
    """Run a service until it is told to stop.

    Args:
        name: A key of SERVICES.
        overrides: Variables that count instead of the environment's, from the command line.

    Returns:
        The exit status: 0, or 2 when the settings are wrong.
    """
    service = SERVICES[name]
    environ = {**environment(), **(overrides or {})}
    try:
        settings = load(settings_class(service), service.prefix, environ)
    except SettingsError as error:
        sys.stderr.write(f"cloudtolocalllm {name}: {error}\n")
        return 2
    logs.configure(service.room, level=environ.get("C2L_LOG_LEVEL", "INFO").upper())
    serve = importlib.import_module(f"cloudtolocalllm.{service.room}.service").serve
    leash = settings.leash_fd
    lifecycle.run(lambda stop: serve(settings, stop), leash=leash if leash is not None and leash >= 0 else None)
    return 0
