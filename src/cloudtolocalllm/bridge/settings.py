"""What a bridge can be told."""

import platform
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from cloudtolocalllm.bridge.guard import OPTIONAL_ROUTES
from cloudtolocalllm.bridge.store import key_place
from cloudtolocalllm.runtime.settings import setting
from cloudtolocalllm.sealed.limits import MAX_CHUNK
from cloudtolocalllm.sealed.padding import DEFAULT_POLICY


class Plain(Enum):
    """Whether requests are served that the cloud can read in passing."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL such as http://127.0.0.1:8080")
    if parts.query or parts.fragment:
        raise ValueError("expected a URL without query and fragment")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("expected a port between 1 and 65535") from None
    return text.rstrip("/")


def _http_urls(text: str) -> tuple[str, ...]:
    return tuple(_http_url(part.strip()) for part in text.split(",") if part.strip())


def _optional_url(text: str) -> str:
    return _http_url(text) if text else ""


def _routes(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if any(name not in OPTIONAL_ROUTES for name in names):
        raise ValueError("expected some of " + ", ".join(sorted(OPTIONAL_ROUTES)))
    return names


def _plain(text: str) -> Plain:
    try:
        return Plain(text)
    except ValueError:
        raise ValueError("expected auto, on or off") from None


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("expected a number of seconds") from None
    if not 0 <= value <= 1:
        raise ValueError("expected 0 to 1 second")
    return value


def _stream_size(text: str) -> int:
    size = int(text) if text.isascii() and text.isdigit() else -1
    if size and not DEFAULT_POLICY.floor <= size <= MAX_CHUNK:
        raise ValueError(f"expected 0, or {DEFAULT_POLICY.floor} to {MAX_CHUNK} bytes")
    return size


def _store_key(text: str) -> str:
    return key_place.parsed(text) if text else ""


def _keys(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if any("=" not in part for part in parts):
        raise ValueError("expected HOST:PORT=KEY, separated by commas")
    return parts


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError("expected a port between 0 and 65535")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("expected a number of seconds") from None
    if not 0 < value < 86_400:
        raise ValueError("expected a number of seconds above 0 and below a day")
    return value


@dataclass(frozen=True)
class BridgeSettings:
    """One bridge's settings."""

    server: str = setting("URL of the cloud side that this bridge dials.", parse=_http_url)
    credential_file: Path = setting(
        "JSON file with the credential and its private key, written by pairing, mode 0600."
    )
    name: str = setting("Name under which people see this machine.", default=platform.node()[:128] or "bridge")
    engines: tuple[str, ...] = setting(
        "URLs of model engines, separated by commas; empty to look on the well-known local ports. "
        "An API key may stand in front of the host: http://:KEY@host.",
        default=(),
        parse=_http_urls,
    )
    engine_keys: tuple[str, ...] = setting(
        "API keys of engines as HOST:PORT=KEY, separated by commas.", default=(), parse=_keys
    )
    demo_engine: str = setting("URL of the scripted demo engine, or empty.", default="", parse=_optional_url)
    allow: tuple[str, ...] = setting(
        "Routes of Ollama that change its models and are refused otherwise: pull, delete, copy.",
        default=(),
        parse=_routes,
    )
    allow_cloud_models: bool = setting(
        "Whether Ollama's cloud models, which send prompts on to ollama.com, may be used.", default=False
    )
    plain: Plain = setting(
        "Whether /v1, /ollama and /anthropic are served to requests that are not sealed, which the server can read "
        "as they pass: on, off, or auto for on only when the server is on this machine.",
        default=Plain.AUTO,
        parse=_plain,
    )
    padding_interval: float = setting(
        "Seconds for which what a sealed answer has to say is joined, up to 1. The less, the sooner it is read and "
        "the more bytes it takes; with 0 the times of tokens show.",
        default=DEFAULT_POLICY.interval,
        parse=_interval,
    )
    padding_stream_size: int = setting(
        f"Bytes to which each piece of a sealed stream is padded, {DEFAULT_POLICY.floor} to {MAX_CHUNK}. The fewer, "
        "the less is sent, and the sooner a fast or wordy engine needs the double, which shows; with 0 sizes grow "
        "with what is said.",
        default=DEFAULT_POLICY.stream_size,
        parse=_stream_size,
    )
    store_key: str = setting(
        "Where the key of an encrypted home store lies: keyring, or file: and an absolute path; empty for where "
        "`cloudtolocalllm bridge encrypt-store` noted it. Once it is set, a store in the clear is refused.",
        default="",
        parse=_store_key,
    )
    load_grace: float = setting(
        "Seconds for which a model goes on loading although its client went away.", default=120.0, parse=_positive
    )
    journal_bytes: int = setting("Bytes of memory for answers kept for re-attaching.", default=64 * 1024 * 1024)
    connect_timeout: float = setting("Seconds to wait for a connection to an engine.", default=5.0, parse=_positive)
    drain_grace: float = setting("Seconds for which running answers may end at a stop.", default=5.0, parse=_positive)
    pairing_key: str = setting(
        "API key that pairs this machine when it starts unpaired and nobody is there to confirm it.",
        default="",
    )
    page_port: int | None = setting(
        "TCP port of the loopback on which this bridge serves the page to browsers of this machine; 0 for any free "
        "one; unset for none, but `cloudtolocalllm bridge run` then takes 8790.",
        default=None,
        parse=_port,
    )
    page_root: Path | None = setting(
        "Folder of the built page that it serves there; unset for the one that is installed.", default=None
    )
    leash_fd: int | None = setting(
        "Descriptor whose end tells that the starting process is gone; unset for none.", default=None
    )
