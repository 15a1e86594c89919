"""Where a Redis is, from a URL: redis://, rediss:// (TLS) or unix://, with user, password and database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from cloudtolocalllm.api.state.port import StateError

_EXPECTED = (
    "expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… with TLS, or unix:///PATH[?db=NUMBER]"
)
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
MAX_DATABASE = 65_535


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What it takes to connect."""

    label: str
    """Host and port, or the socket's path: for logs."""
    database: int
    connection_class: type[Connection] | type[UnixDomainSocketConnection]
    options: Mapping[str, Any] = field(repr=False)
    """Arguments of `connection_class`; they may hold a password."""

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Read a URL.

        Args:
            url: With TLS the options ssl_ca_certs, ssl_certfile and ssl_keyfile name files. The server's certificate
                is always verified. A Unix socket takes its password as the option `password`.

        Raises:
            StateError: It is none of ours. The text does not repeat it, for it may hold a password.
        """
        try:
            parts = urlsplit(url.strip())
            query = {
                name: values[0] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()
            }
            if parts.scheme == "unix":
                return cls._unix(parts.path, query)
            if parts.scheme in ("redis", "rediss"):
                number = parts.path.strip("/") or query.pop("db", "0")
                login = (parts.username, parts.password)
                return cls._tcp(parts.scheme == "rediss", parts.hostname, parts.port, number, login, query)
        except ValueError:
            raise StateError(_EXPECTED) from None
        raise StateError(f"{_EXPECTED}; got another scheme")

    @classmethod
    def _unix(cls, path: str, query: dict[str, str]) -> "RedisAddress":
        database = _database(query.pop("db", "0"))
        options: dict[str, Any] = {"path": unquote(path)}
        for name in ("username", "password"):
            if name in query:
                options[name] = query.pop(name)
        _refuse_more(query)
        if not path:
            raise StateError(f"{_EXPECTED}; got no path")
        return cls(unquote(path), database, UnixDomainSocketConnection, options)

    @classmethod
    def _tcp(
        cls,
        tls: bool,
        host: str | None,
        port: int | None,
        database: str,
        login: tuple[str | None, str | None],
        query: dict[str, str],
    ) -> "RedisAddress":
        if not host:
            raise StateError(f"{_EXPECTED}; got no host")
        port = port or 6379
        options: dict[str, Any] = {"host": host, "port": port}
        for name, text in zip(("username", "password"), login, strict=True):
            if text:
                options[name] = unquote(text)
        for name in _TLS_FILES if tls else ():
            if name in query:
                options[name] = query.pop(name)
                if not Path(options[name]).is_file():
                    raise StateError(f"expected the file that the option {name} names; there is none")
        _refuse_more(query)
        return cls(f"{host}:{port}", _database(database), SSLConnection if tls else Connection, options)

    def connection_options(self, *, protocol: int) -> dict[str, Any]:
        """Return the arguments of `connection_class`, with no timeouts and no second attempts: callers have theirs.

        Args:
            protocol: Version of RESP: 3 lets one connection publish and subscribe.
        """
        return {
            **self.options,
            "db": self.database,
            "protocol": protocol,
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
            "client_name": "cloudtolocalllm",
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }


def _database(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or int(text) > MAX_DATABASE:
        raise StateError(f"{_EXPECTED}; got a database that is no number up to {MAX_DATABASE}")
    return int(text)


def _refuse_more(query: dict[str, str]) -> None:
    if query:
        raise StateError(f"expected no option {next(iter(query))!r} in the URL of the state")
