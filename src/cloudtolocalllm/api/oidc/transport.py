"""Requests to the provider: bounded in time and size, to the address that was meant, with no redirect followed."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import certifi
import httpx

from cloudtolocalllm.auth.oidc import read_object

TIMEOUT = 5.0
"""Seconds for a whole exchange: somebody waits in front of a blank page."""
MAX_CONTENT = 256 * 1024
"""Bytes of an answer; a discovery document has about 3,000."""
MAX_ERROR = 64
"""Characters of an OAuth error code that are kept."""


class ProviderUnavailableError(Exception):
    """The provider does not answer as it should. The text is for the log."""


class ProviderRefusedError(Exception):
    """The provider answered no. The text is its OAuth error code (RFC 6749 §5.2), which names nobody."""


class Transport:
    """Sends requests."""

    def __init__(self, *, timeout: float = TIMEOUT) -> None:
        """Make a transport.

        Args:
            timeout: Seconds for a whole exchange.
        """
        logging.getLogger("httpx").setLevel("WARNING")  # it tells every URL at INFO
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=4, keepalive_expiry=30.0),
            verify=_context(),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "cloudtolocalllm"},
        )

    async def get(self, url: str, *, bearer: str | None = None) -> dict[str, Any]:
        """Return the JSON object at a URL.

        Raises:
            ProviderUnavailableError: There is none.
        """
        headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
        status, value = await self._exchange(httpx.Request("GET", url, headers=self._headers(headers)))
        if status != 200:
            raise ProviderUnavailableError(f"expected status 200, got {status}")
        return value

    async def post(self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None) -> dict[str, Any]:
        """Post a form to an OAuth endpoint and return its JSON object.

        Args:
            url: The endpoint.
            form: The fields.
            basic: Client id and secret for HTTP Basic, None to send none.

        Raises:
            ProviderRefusedError: It answered with an OAuth error.
            ProviderUnavailableError: It did not answer as it should.
        """
        auth = None
        if basic is not None:  # RFC 6749 §2.3.1: each is form-encoded before they are joined
            auth = httpx.BasicAuth(quote_plus(basic[0]), quote_plus(basic[1]))
        request = self._client.build_request("POST", url, data=dict(form))
        if auth is not None:
            request = next(auth.auth_flow(request))
        status, value = await self._exchange(request)
        if status == 200:
            return value
        error = value.get("error")
        if status in (400, 401, 403) and isinstance(error, str) and error.isascii() and error.isprintable():
            raise ProviderRefusedError(error[:MAX_ERROR])
        raise ProviderUnavailableError(f"expected status 200, got {status}")

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    def _headers(self, more: Mapping[str, str]) -> httpx.Headers:
        return httpx.Headers({**self._client.headers, **more})

    async def _exchange(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.send(request, stream=True)
                try:
                    content = await _content(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, TimeoutError) as error:
            raise ProviderUnavailableError(type(error).__name__) from None
        value: dict[str, Any] = {}
        if response.status_code == 200:
            try:
                value = read_object(content)
            except (ValueError, TypeError):
                raise ProviderUnavailableError("expected a JSON object") from None
        else:
            with contextlib.suppress(ValueError, TypeError):
                value = read_object(content)
        return response.status_code, value


async def _content(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ProviderUnavailableError("expected no content coding, for none was asked for")
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > MAX_CONTENT:
            raise ProviderUnavailableError(f"expected at most {MAX_CONTENT} bytes")
    return bytes(content)


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()  # the machine's authorities, and SSL_CERT_FILE's
    context.load_verify_locations(certifi.where())  # for machines that have none
    return context
