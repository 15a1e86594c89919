"""What `connect` can be told."""

import platform
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.connect.address import ServerAddress
from cloudtolocalllm.runtime.settings import setting

PORT = 11434
"""Ollama's, so that its clients find it without being told."""


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) < 65536:
        raise ValueError("expected a port between 0 and 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("expected a number of seconds") from None
    if not 0 < value <= 86_400:
        raise ValueError("expected a number of seconds above 0 and up to a day")
    return value


def _server(text: str) -> str:
    return ServerAddress.parse(text).url if text else ""


@dataclass(frozen=True)
class ConnectSettings:
    """The local endpoint's settings."""

    data_dir: Path = setting(
        "Folder with the homes that this computer is paired with, and its keys if files hold them."
    )
    port: int = setting("The TCP port on 127.0.0.1 to listen on; 0 for any free one.", default=PORT, parse=_port)
    server: str = setting(
        "URL of the server whose homes are used; empty for those of every server.", default="", parse=_server
    )
    key: str = setting("API key for the server, instead of the one that is kept; with one server only.", default="")
    key_file: Path | None = setting("File with that API key.", default=None)
    name: str = setting(
        "Name under which a home lists this computer when it is paired.", default=platform.node()[:64] or "computer"
    )
    keyring: bool = setting("Whether keys are kept in the system's keychain, where there is one.", default=True)
    hosts: tuple[str, ...] = setting(
        "Names besides localhost under which programs may ask, separated by commas.", default=()
    )
    origins: tuple[str, ...] = setting(
        "Origins of web pages that may ask, such as http://localhost:3000, separated by commas; * for all.",
        default=(),
    )
    patience: float = setting(
        "Seconds for which a home is tried before a request is refused that none has taken.",
        default=10.0,
        parse=_seconds,
    )
    deadline: float = setting(
        "Seconds for which an answer that broke off is taken up again.", default=600.0, parse=_seconds
    )
    seed: bool = setting(
        "Whether a request to generate that has no seed is given one, so that its answer can be gone on with when "
        "the bridge at home was started anew.",
        default=True,
    )
    json_ready: bool = setting("Whether one line of JSON on stdout tells when it is ready.", default=False)
    leash_fd: int | None = setting(
        "Descriptor whose end tells that the starting process is gone; unset for none.", default=None
    )
