"""The API with a real provider, and what a browser does there."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from tests.support.api_parts import RunningApi, running_api
from tests.support.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    OidcProvider,
    running_provider,
    sign_in_at_provider,
)
from tests.support.ports import free_port

from cloudtolocalllm.api.secrets import load_sealing_keys
from cloudtolocalllm.api.service import serve
from cloudtolocalllm.auth.sessions import COOKIE, Sealer, Session
from cloudtolocalllm.contracts.endpoint import Endpoint

START = "/api/auth/oidc/start"
CALLBACK = "/api/auth/oidc/callback"
LOGOUT = "/api/auth/oidc/back-channel-logout"


@dataclass
class Place:
    """The API with its provider."""

    api: RunningApi
    provider: OidcProvider
    url: str

    def browser(self) -> httpx.AsyncClient:
        """Return a browser without cookies."""
        return httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False)

    @property
    def sealer(self) -> Sealer:
        return Sealer(load_sealing_keys(self.api.settings.secrets_dir))

    async def to_callback(self, browser: httpx.AsyncClient, account: str, return_to: str = "/") -> str:
        """Sign in at the provider and return the callback's address without going there."""
        start = await browser.get(START, params={"return_to": return_to})
        assert start.status_code == 302
        return await sign_in_at_provider(browser, start.headers["location"], account)

    async def sign_in(self, browser: httpx.AsyncClient, account: str, return_to: str = "/") -> httpx.Response:
        """Sign in; returns the callback's answer."""
        return await browser.get(await self.to_callback(browser, account, return_to))

    def session_of(self, browser: httpx.AsyncClient) -> Session:
        """Return what a browser's session cookie holds."""
        return self.sealer.open(browser.cookies[COOKIE], now=time.time())

    def age(self, browser: httpx.AsyncClient) -> None:
        """Make a browser's session one that the provider last vouched for an hour ago."""
        session = self.session_of(browser)
        keep(browser, self.sealer.seal(replace(session, refreshed=session.refreshed - 3600)))


def keep(browser: httpx.AsyncClient, cookie: str) -> None:
    """Replace a browser's session cookie."""
    browser.cookies.delete(COOKIE)
    browser.cookies.set(COOKIE, cookie, domain="127.0.0.1", path="/")


@contextlib.asynccontextmanager
async def place(folder: Path, *, conform: bool = False, **settings: Any) -> AsyncIterator[Place]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    secret = folder / "client-secret"
    secret.write_text(CLIENT_SECRET + "\n")
    with running_provider(url, conform=conform) as provider:
        given = {
            "listen": Endpoint(host="127.0.0.1", port=port),
            "oidc_issuer": provider.issuer,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret_file": secret,
            "oidc_name": "Example",
            "admin": "groups=admins",
        }
        async with running_api(folder, public_url=url, **{**given, **settings}) as api:
            yield Place(api, provider, url)


def failed(response: httpx.Response) -> str:
    """Return the code of a sign-in that failed."""
    assert response.status_code == 302
    target = urlsplit(response.headers["location"])
    assert (target.scheme, target.netloc, target.path) == ("", "", "/sign-in")
    return parse_qs(target.query)["error"][0]


async def status(browser: httpx.AsyncClient) -> dict[str, Any]:
    response = await browser.get("/api/auth/session")
    assert response.status_code == 200
    return dict(response.json())


def failed_or_not(response: httpx.Response) -> str | None:
    return failed(response) if "error=" in response.headers["location"] else None


@contextlib.asynccontextmanager
async def another_process(there: Place, **changed: Any) -> AsyncIterator[str]:
    """Run a second process on the same state with other settings; yields its address."""
    listen = Endpoint(host="127.0.0.1", port=free_port())
    ready, stop = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(replace(there.api.settings, listen=listen, **changed), stop, ready=ready.set))
        async with asyncio.timeout(10):
            await ready.wait()
        try:
            yield f"http://{listen}"
        finally:
            stop.set()
