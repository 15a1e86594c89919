"""A bridge that serves its own page, and a browser's requests to it."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.support.bridge_parts import Home, home

from cloudtolocalllm.bridge.page.server import Page

INDEX = b"<!doctype html><html><head><title>t</title></head><body></body></html>"


def build(folder: Path) -> Path:
    """Make what looks like a build."""
    root = folder / "build"
    (root / "assets").mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "index.html.br", "index.html.gz"):
        (root / name).write_bytes(INDEX if name.endswith("html") else b"compressed")
    (root / "assets" / "index-0.js").write_text("1;")
    return root


def page_of(at: Home) -> Page:
    assert at.bridge.page is not None
    return at.bridge.page


class Browser:
    """Speaks as a page of ours does."""

    def __init__(self, at: Home) -> None:
        self.page = page_of(at)
        self.url = self.page.address.url
        self.client = httpx.AsyncClient(base_url=self.url, timeout=10.0)
        self.key = "1"
        self.signed: httpx.Response | None = None

    @property
    def own(self) -> dict[str, str]:
        """The fields of the page's own requests."""
        return {"c2l-request": self.key, "sec-fetch-site": "same-origin"}

    @property
    def cookie(self) -> str:
        """As it is sent."""
        return "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())

    async def sign_in(self, link: str | None = None) -> httpx.Response:
        """Follow a link."""
        token = (link or self.page.link()).partition("#token=")[2]
        answer = self.signed = await self.client.post("/api/auth/sign-in", json={"token": token}, headers=self.own)
        if answer.status_code == 200:
            self.key = answer.json()["page_key"]
        return answer

    async def ask(self, method: str, path: str, value: Any = None, **fields: str) -> httpx.Response:
        """Ask for something; fields are given with _ for -."""
        headers = {**self.own, **{name.replace("_", "-"): text for name, text in fields.items()}}
        content = None if value is None else json.dumps(value)
        return await self.client.request(method, path, content=content, headers=headers)


@asynccontextmanager
async def paged(tmp_path: Path, *engines: str, **settings: Any) -> AsyncGenerator[tuple[Home, Browser]]:
    """Run a bridge that serves its page, and a browser that is signed in."""
    async with home(tmp_path, *engines, page_port=0, page_root=build(tmp_path), **settings) as at:
        browser = Browser(at)
        async with browser.client:
            await browser.sign_in()
            yield at, browser


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    """Return status and slug of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, str(answer.json()["type"]).removeprefix("urn:c2l:problem:")
