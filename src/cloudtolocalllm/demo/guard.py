"""Whom Ollama answers: its checks of Host and Origin, which keep web pages from using a local engine."""

import ipaddress
from urllib.parse import urlsplit

_SCHEMES = frozenset({"app", "file", "tauri", "vscode-webview", "vscode-file"})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "[::1]"})  # noqa: S104 - compared with, not bound to


def host_allowed(host: str) -> bool:
    """Return whether a Host field names this machine (against DNS rebinding)."""
    name = (urlsplit("//" + host).hostname or "").lower()
    if name in ("", "localhost") or name.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def origin_allowed(origin: str | None, host: str) -> bool:
    """Return whether a page of this origin may use the engine."""
    if origin is None or origin in ("http://" + host, "https://" + host):
        return True
    parts = urlsplit(origin)
    return parts.scheme in _SCHEMES or (parts.scheme in ("http", "https") and parts.hostname in _LOCAL_NAMES)
