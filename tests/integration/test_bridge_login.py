"""The bridge's own side of pairing, renewal and revocation, against the real API."""

import asyncio
import contextlib
import stat
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.support.api_parts import MARK, RunningApi, running_api
from tests.support.link_parts import until
from tests.support.pairing_parts import PAIRING
from tests.support.ports import free_port
from tests.support.scripted_engine import Asked, scripted_engine

from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.control import RevokedError
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError, Prover
from cloudtolocalllm.bridge.login import Invitation, Login
from cloudtolocalllm.bridge.pairing import pair, renew, unpair
from cloudtolocalllm.bridge.service import Bridge, serve
from cloudtolocalllm.bridge.settings import BridgeSettings
from cloudtolocalllm.contracts.endpoint import Endpoint


class Cloud:
    """The API on a TCP port, and somebody who is signed in there."""

    def __init__(self, api: RunningApi, url: str, person: httpx.AsyncClient) -> None:
        self.api = api
        self.url = url
        self.person = person

    async def decide(self, reference: str, what: str = "approve") -> str | None:
        response = await self.person.post(f"{PAIRING}/requests/{reference}/{what}", json={}, headers=MARK)
        assert response.status_code == 200, response.text
        target: str | None = response.json()["redirect_to"]
        return target

    async def bridges(self) -> list[str]:
        return [bridge["id"] for bridge in (await self.person.get("/api/bridge")).json()]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncGenerator[Cloud]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    listen = Endpoint(host="127.0.0.1", port=port)
    async with (
        running_api(tmp_path, public_url=url, listen=listen) as api,
        httpx.AsyncClient(base_url=url, timeout=10) as person,
    ):
        answer = await person.post("/api/auth/sign-in", json={"token": await api.sign_in_token(api.owner)})
        assert answer.status_code == 204
        yield Cloud(api, url, person)


class Clicks:
    """A person who does something once shown where."""

    def __init__(self, do: Callable[..., "asyncio.Future[None]"]) -> None:
        self._do = do
        self.shown: list[object] = []
        self.task: asyncio.Future[None] | None = None

    def __call__(self, what: object) -> None:
        self.shown.append(what)
        self.task = self._do(what)


def clicks(do: Callable[..., object]) -> Clicks:
    return Clicks(lambda what: asyncio.get_running_loop().create_task(do(what)))  # type: ignore[arg-type] # a coroutine


# --- by code -----------------------------------------------------------------------------------------------------


async def test_a_machine_is_paired_by_a_code_and_connects(cloud: Cloud, tmp_path: Path) -> None:
    async def confirm(invitation: Invitation) -> None:
        assert invitation.url == f"{cloud.url}/pair"
        assert invitation.complete_url == f"{cloud.url}/pair?code={invitation.code}"
        await cloud.decide(invitation.code)

    person = clicks(confirm)
    identity = await Login(cloud.url, "den").by_code(person)
    assert await cloud.bridges() == [identity.bridge_id]
    assert len(person.shown) == 1
    path = tmp_path / "home" / "credential.json"
    identity.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert BridgeIdentity.load(path) == identity
    async with running(cloud, path) as bridge:
        await until(lambda: bridge.uplink.connected)
        listed = (await cloud.person.get("/api/bridge")).json()
        assert listed[0]["connected"]
        assert listed[0]["name"] == "den"


async def test_a_denied_code_says_so(cloud: Cloud) -> None:
    with pytest.raises(PairingError, match="denied"):
        await Login(cloud.url, "den").by_code(clicks(lambda invitation: cloud.decide(invitation.code, "deny")))


async def test_a_code_that_nobody_confirms_ends(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtolocalllm.bridge.login.MAX_WAIT", 0.3)
    with pytest.raises(PairingError, match="in time"):
        await Login(cloud.url, "den").by_code(lambda _: None)


async def test_no_server_is_said_to_be_none() -> None:
    with pytest.raises(PairingError, match="does not answer"):
        await Login("http://127.0.0.1:9", "den").by_code(lambda _: None)
    with pytest.raises(PairingError, match="server's URL"):
        Login("nonsense", "den")


@pytest.mark.parametrize(
    "page", ["file:///etc/passwd", "javascript:alert(1)", "http://\x1b[2J", "https://x/ y", "", 5, "x" * 2000]
)
async def test_a_server_cannot_have_anything_but_a_page_opened(page: object) -> None:
    async def answer(asked: Asked) -> None:
        asked.json({"request": "a", "authorization_uri": page, "expires_in": 300})

    opened: list[str] = []
    async with scripted_engine(answer=answer) as server:
        with pytest.raises(PairingError, match="URL of a page"):
            await Login(server.url, "den").by_browser(opened.append)
    assert opened == []


# --- by browser -----------------------------------------------------------------------------------------------------


def request_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["request"][0]


async def test_a_machine_is_paired_by_its_browser(cloud: Cloud) -> None:
    pages: list[httpx.Response] = []

    async def confirm(url: str) -> None:
        target = await cloud.decide(request_of(url))
        assert target is not None
        async with httpx.AsyncClient() as browser:
            forged = target.replace("state=", "state=x")
            pages.append(await browser.get(forged))
            pages.append(await browser.get(target.replace("/callback", "/other")))
            pages.append(await browser.get(target))

    person = clicks(confirm)
    identity = await Login(cloud.url, "den").by_browser(person)
    assert person.task is not None
    await person.task
    assert await cloud.bridges() == [identity.bridge_id]
    assert [page.status_code for page in pages] == [400, 404, 200], "expected a forged answer to change nothing"
    assert "Confirmed" in pages[2].text
    assert identity.credential not in pages[2].text
    assert pages[2].headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_browser_that_says_no_ends_it(cloud: Cloud) -> None:
    async def deny(url: str) -> None:
        target = await cloud.decide(request_of(url), "deny")
        assert target is not None
        async with httpx.AsyncClient() as browser:
            assert "not granted" in (await browser.get(target)).text

    with pytest.raises(PairingError, match="denied"):
        await Login(cloud.url, "den").by_browser(clicks(deny))
    assert await cloud.bridges() == []


# --- with an API key, and without asking ---------------------------------------------------------------------------


async def test_pairing_with_a_key_keeps_the_private_one_here(cloud: Cloud) -> None:
    person = cloud.api.key_of(cloud.api.owner)
    identity = await pair(cloud.url, person.key, "server")
    said = credentials.verify(cloud.api.ring, identity.credential, now=time.time())
    assert said.thumbprint == identity.key.thumbprint
    secret = identity.key.private_jwk()["d"]
    for path in cloud.api.settings.data_dir.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    with pytest.raises(PairingError, match="refuses the API key"):
        await pair(cloud.url, person.key[:-5] + "AAAAA", "server")


# --- running ---------------------------------------------------------------------------------------------------


def settings_of(cloud: Cloud, path: Path) -> BridgeSettings:
    return BridgeSettings(
        server=cloud.url, credential_file=path, engines=("http://127.0.0.1:9",), name="den", drain_grace=0.2
    )


@contextlib.asynccontextmanager
async def running(cloud: Cloud, path: Path) -> AsyncGenerator[Bridge]:
    bridge = Bridge(settings_of(cloud, path))
    await bridge.start()
    task = asyncio.get_running_loop().create_task(bridge.run())
    try:
        yield bridge
    finally:
        task.cancel()
        await asyncio.wait([task])
        await bridge.close()


async def paired(cloud: Cloud, path: Path) -> BridgeIdentity:
    identity = await pair(cloud.url, cloud.api.key_of(cloud.api.owner).key, "den")
    identity.save(path)
    return identity


async def test_the_credential_is_renewed_at_half_of_its_life_while_connected(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    fresh = await paired(cloud, path)
    async with running(cloud, path) as bridge:
        await until(lambda: bridge.uplink.connected)
        await asyncio.sleep(0.1)
        assert BridgeIdentity.load(path) == fresh, "expected a young credential to be kept"
    old = replace(fresh, issued=time.time() - 16 * 86_400, expires=time.time() + 14 * 86_400)
    old.save(path)
    async with running(cloud, path) as bridge:
        await until(lambda: BridgeIdentity.load(path).expires > old.expires)
    renewed = BridgeIdentity.load(path)
    assert renewed.bridge_id == fresh.bridge_id
    assert renewed.key == fresh.key
    assert await cloud.bridges() == [fresh.bridge_id]
    async with running(cloud, path) as bridge:
        await until(lambda: bridge.uplink.connected)


async def test_a_renewal_that_fails_keeps_what_there_is(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    fresh = await paired(cloud, path)
    prover = Prover("http://127.0.0.1:9", lambda: fresh)
    with pytest.raises(PairingError, match="does not answer"):
        await renew("http://127.0.0.1:9", prover)
    thief = replace(fresh, key=ProofKey.generate())
    with pytest.raises(PairingError, match="status 401"):
        await renew(cloud.url, Prover(cloud.url, lambda: thief))


async def test_a_revoked_bridge_ends_and_says_how_to_come_back(
    cloud: Cloud, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.json"
    identity = await paired(cloud, path)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.get_running_loop().create_task(serve(settings_of(cloud, path), stop, on_ready=ready.set))
    async with asyncio.timeout(10):
        await ready.wait()
        began = time.monotonic()
        assert (await cloud.person.delete(f"/api/bridge/{identity.bridge_id}", headers=MARK)).status_code == 204
        with pytest.raises(RevokedError, match="bridge login"):
            await task
    assert time.monotonic() - began < 2.0
    assert identity.credential not in caplog.text
    with pytest.raises(PairingError, match="revoked"):
        await serve(settings_of(cloud, path), stop)


async def test_a_bridge_that_was_revoked_while_it_was_off_learns_it_at_once(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    identity = await paired(cloud, path)
    assert (await cloud.person.delete(f"/api/bridge/{identity.bridge_id}", headers=MARK)).status_code == 204
    async with asyncio.timeout(5):
        with pytest.raises(RevokedError):
            await serve(settings_of(cloud, path), asyncio.Event())


async def test_under_a_leash_a_revoked_bridge_stays_until_it_is_told_to_stop(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    identity = await paired(cloud, path)
    assert (await cloud.person.delete(f"/api/bridge/{identity.bridge_id}", headers=MARK)).status_code == 204
    stop = asyncio.Event()
    settings = replace(settings_of(cloud, path), leash_fd=0)
    task = asyncio.get_running_loop().create_task(serve(settings, stop))
    await until(lambda: '"revoked": true' in path.read_text())
    await asyncio.sleep(0.1)
    assert not task.done(), "expected it not to be started again and again"
    stop.set()
    async with asyncio.timeout(5):
        await task


async def test_a_bridge_gives_its_credential_back(cloud: Cloud, tmp_path: Path) -> None:
    identity = await paired(cloud, tmp_path / "c.json")
    assert await unpair(cloud.url, Prover(cloud.url, lambda: identity))
    assert await cloud.bridges() == []
    assert await unpair(cloud.url, Prover(cloud.url, lambda: identity)), "expected a second time to do no harm"
    thief = replace(identity, key=ProofKey.generate())
    other = await paired(cloud, tmp_path / "d.json")
    assert not await unpair(cloud.url, Prover(cloud.url, lambda: replace(other, key=thief.key)))
    assert await cloud.bridges() == [other.bridge_id]
