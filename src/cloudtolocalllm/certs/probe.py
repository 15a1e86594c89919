"""Whether nginx serves the webroot, found out without the authority: a failed validation there counts."""

import asyncio
import contextlib
import http.client
import secrets
from pathlib import Path
from urllib.parse import urlsplit

CHALLENGES = ".well-known/acme-challenge"
TIMEOUT = 5.0
"""Seconds of each wait."""


async def served(webroot: Path, url: str, host: str) -> bool:
    """Return whether a file in the webroot is seen at a URL.

    Args:
        webroot: The folder.
        url: Where nginx answers, such as `http://ports:8080`.
        host: The name to ask for.

    Raises:
        OSError: The webroot cannot be written.
    """
    folder = webroot / CHALLENGES
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    token = f"c2l-probe-{secrets.token_hex(16)}"
    file = folder / token
    try:
        file.write_text(token)
        file.chmod(0o644)
        async with asyncio.timeout(4 * TIMEOUT):
            return await asyncio.to_thread(_get, url, host, token) == token.encode()
    except TimeoutError:
        return False
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _get(url: str, host: str, token: str) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT)
    try:
        connection.request("GET", f"/{CHALLENGES}/{token}", headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        return answer.read(len(token) + 1) if answer.status == 200 else b""
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
