"""Where a service listens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Unix socket or a TCP address; only drivers and the edge interpret it."""

    path: str | None = None
    host: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read "unix:/absolute/path" or "host:port".

        Raises:
            ValueError: It is neither; the text says what was expected.
        """
        if text.startswith("unix:/"):
            return cls(path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f'expected "unix:/path" or "host:port", got {text!r}')
        return cls(host=host.strip("[]"), port=int(port))

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if self.host and ":" in self.host else f"{self.host}:{self.port}"
