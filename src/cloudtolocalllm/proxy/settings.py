"""What a streaming proxy is told when it starts."""

from dataclasses import dataclass

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import setting

PREFIX = "C2L_PROXY_"


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError("expected 64 hexadecimal digits")
    return key


@dataclass(frozen=True, slots=True, repr=False)  # no repr: it would show the key
class ProxySettings:
    """The settings of one proxy; read from variables that begin with C2L_PROXY_, or made by the fork server."""

    instance: str = setting("Id of this proxy, which assertions name.")
    key: bytes = setting("Key of this proxy as 64 hexadecimal digits: assertions are made under it.", parse=_key)
    listen: Endpoint = setting('Where to listen: "unix:/path" or "host:port".', parse=Endpoint.parse)
    listen_group: bool = setting(
        "Whether the group of the Unix socket may connect too, as nginx does in a container of its own.",
        default=False,
    )
    attach_timeout: float = setting("Seconds that a request waits for a bridge to attach.", default=10.0)
    head_timeout: float = setting(
        "Seconds from the request to the head of its answer; 0 for no limit, since loading a model takes its time.",
        default=0.0,
    )
    resume_window: float = setting("Seconds that a stream waits for its bridge to come back.", default=60.0)
    max_in_flight: int = setting("Requests at once; more are answered with 503.", default=256)
    max_waiting: int = setting("Requests at once that wait for a bridge to attach.", default=1024)
    drain: float = setting("Seconds that requests in flight are given when the proxy is told to stop.", default=10.0)
    orphan_timeout: float = setting(
        "Seconds after which a proxy that no manager asks for its figures ends by itself; 0 for never.", default=0.0
    )
    leash_fd: int | None = setting(
        "Descriptor whose end stops the proxy: the starting process holds the other end.", default=None
    )
    log_level: str = setting("Least severe log level shown.", default="INFO")
