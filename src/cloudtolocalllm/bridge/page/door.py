"""Which requests to the page come from this machine's person: pure.

- **Host** is the loopback with our port, or a foreign name was made to point here (DNS rebinding).
- **Origin and Sec-Fetch-Site**, where a browser sends them, name this very page. Another port of this computer is
  another origin, but the same *site*, so that SameSite of a cookie does not keep its pages out.
- **C2L-Request** a page of another origin can send only after a question (CORS) that is never answered here.
- **Cookie and C2L-Request together** are the session (`page.sessions`).
"""

from dataclasses import dataclass

from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.loopback import NAMES, field, host_name

REQUEST_FIELD = b"c2l-request"
HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class Credentials:
    """Both halves of a session, as they were sent; "" for none."""

    cookie: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class PageDoor:
    """Judges requests."""

    port: int

    @property
    def cookie_name(self) -> str:
        """Of the session. Cookies of all ports of a computer share one jar, so the name tells them apart."""
        return f"c2l-page-{self.port}"

    def check_host(self, headers: Headers) -> None:
        """Refuse what was sent to another name.

        Raises:
            RefusalError: It was.
        """
        host = field(headers, b"host") or ""
        name = host_name(host)
        if name not in NAMES or host.lower() != self._authority(name):
            raise RefusalError(
                Problem.FORBIDDEN, f"This page is at http://127.0.0.1:{self.port} on this computer only."
            )

    def check_page(self, headers: Headers) -> None:
        """Refuse what another page sent.

        Raises:
            RefusalError: It did.
        """
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        own = "http://" + (field(headers, b"host") or "").lower()
        site = field(headers, b"sec-fetch-site")
        if any(origin != own for origin in origins) or site not in (None, "same-origin"):
            raise RefusalError(Problem.FORBIDDEN, "Only this very page may ask here.")
        if field(headers, REQUEST_FIELD) is None:
            raise RefusalError(Problem.FORBIDDEN, "Expected the field C2L-Request, which only this page can send.")

    def credentials(self, headers: Headers) -> Credentials:
        """Return what was sent of a session; a cookie that stands twice is none."""
        prefix = self.cookie_name + "="
        pairs = [
            pair.strip()
            for name, value in headers
            if name == b"cookie"
            for pair in value.decode("latin-1").split(";")
        ]  # fmt: skip
        found = [pair.removeprefix(prefix) for pair in pairs if pair.startswith(prefix)]
        key = field(headers, REQUEST_FIELD) or ""
        return Credentials(found[0], key) if len(found) == 1 else Credentials(key=key)

    def set_cookie(self, value: str, seconds: int) -> bytes:
        """Return the field that keeps a session, or with 0 seconds forgets it.

        `Secure` and the prefix `__Host-` need TLS in browsers that make no exception for the loopback.
        """
        return f"{self.cookie_name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict".encode()

    def _authority(self, name: str) -> str:
        return name if self.port == HTTP_PORT else f"{name}:{self.port}"
