"""The page that a bridge serves itself: who gets in, where it listens, and how its owner opens it."""

import asyncio
import contextlib
import io
import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.bridge_parts import home
from tests.support.page_parts import INDEX, Browser, build, page_of, paged, problem_of
from tests.support.scripted_engine import scripted_engine

from cloudtolocalllm.bridge.page.link import address_path, read_address
from cloudtolocalllm.bridge.page.sessions import MAX_SESSIONS
from cloudtolocalllm.cli.main import main
from cloudtolocalllm.runtime.page_fields import SECURITY

DATA = ("/c2l/conversations", "/c2l/keys", "/v1/models", "/anthropic/v1/messages", "/api/streaming/events")
"""What nobody gets without a session."""


async def test_the_page_is_the_build_with_a_mark(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (at, browser):
        for path in ("/", "/settings", "/sign-in"):
            answer = await browser.client.get(path, headers={"accept-encoding": "br, gzip"})
            assert answer.status_code == 200
            assert "content-encoding" not in answer.headers, "expected no old version of what was changed"
            server = read_address(address_path(tmp_path / "credential.json"))
            assert server is not None
            origin = at.bridge.prover.identity.server
            mark = f'<meta name="c2l-home" content="direct" data-keep="nothing" data-server="{origin}" />'.encode()
            assert answer.content == INDEX.replace(b"<head>", b"<head>" + mark)
            for name, value in SECURITY:
                assert answer.headers[name.decode()].encode() == value
        assert (await browser.client.get("/assets/index-0.js")).content == b"1;"
        assert problem_of(await browser.client.get("/assets/none.js")) == (404, "not-found")
        assert problem_of(await browser.client.post("/", headers=browser.own)) == (405, "method-not-allowed")


# --- who gets in --------------------------------------------------------------------------------------------------


async def test_a_link_signs_in_once_and_the_session_says_so(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        who = await browser.ask("GET", "/api/auth/session")
        assert (who.json()["signed_in"], who.json()["user"]) == (True, "local")
        link = browser.page.link()
        other = Browser(_)
        async with other.client:
            assert (await other.ask("GET", "/api/auth/session")).json()["signed_in"] is False
            assert (await other.sign_in(link)).status_code == 200
        third = Browser(_)
        async with third.client:
            assert problem_of(await third.sign_in(link)) == (401, "unauthenticated")
            assert third.client.cookies == {}
        for token in ("", "x", link[-20:], "A" * 76):
            answer = await browser.ask("POST", "/api/auth/sign-in", {"token": token})
            assert problem_of(answer) == (401, "unauthenticated")
        large = await browser.ask("POST", "/api/auth/sign-in", {"token": "x" * 8000})
        assert problem_of(large) == (401, "unauthenticated")


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        assert browser.signed is not None
        name, *attributes = browser.signed.headers["set-cookie"].split("; ")
        assert name.startswith(f"c2l-page-{browser.url.rpartition(':')[2]}=")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} < set(attributes)


@pytest.mark.parametrize("path", DATA)
async def test_both_halves_of_one_session_are_needed(tmp_path: Path, path: str) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (at, browser):
        other = Browser(at)
        async with other.client, httpx.AsyncClient(base_url=browser.url) as bare:
            await other.sign_in()
            for cookie, key in (
                ("", "1"), (browser.cookie, "1"), ("", browser.key), (browser.cookie, other.key),
                (f"{browser.cookie}; {browser.cookie}", browser.key),
            ):  # fmt: skip
                fields = {"c2l-request": key, **({"cookie": cookie} if cookie else {})}
                assert problem_of(await bare.get(path, headers=fields)) == (401, "unauthenticated")
            async with bare.stream(
                "GET", path, headers={"c2l-request": browser.key, "cookie": browser.cookie}
            ) as good:  # fmt: skip
                # Of the messages, the guard knows only POST.
                assert good.status_code == (403 if path.startswith("/anthropic") else 200)
        assert engine.asked == [] or path.startswith("/v1")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.2:{port}"]
)
async def test_another_name_that_points_here_gets_nothing(tmp_path: Path, host: str) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        named = host.format(port=browser.url.rpartition(":")[2])
        for path in ("/", "/assets/index-0.js", "/api/auth/session", *DATA):
            assert problem_of(await browser.ask("GET", path, host=named)) == (403, "forbidden")
        link = browser.page.link().partition("#token=")[2]
        refused = await browser.ask("POST", "/api/auth/sign-in", {"token": link}, host=named)
        assert problem_of(refused) == (403, "forbidden")
        local = f"localhost:{browser.url.rpartition(':')[2]}"
        assert (await browser.ask("GET", "/api/auth/session", host=local)).json()["signed_in"] is True


async def test_other_pages_get_nothing_not_even_those_of_another_port(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        for path in ("/api/auth/session", *DATA):
            for fields in (
                {"origin": "https://evil.example"},
                {"origin": "http://127.0.0.1:3000"},
                {"origin": "null"},
                {"origin": browser.url.replace("http", "https")},
                {"sec_fetch_site": "cross-site"},
                {"sec_fetch_site": "same-site"},
                {"sec_fetch_site": "none"},
            ):
                answer = await browser.ask("GET", path, **fields)
                assert problem_of(answer) == (403, "forbidden"), (path, fields)
                assert "access-control-allow-origin" not in answer.headers
            bare = await browser.client.get(path)
            assert problem_of(bare) == (403, "forbidden"), "expected a field that no foreign page can send"
        made = await browser.ask("POST", "/c2l/conversations", {"title": "x"}, origin="http://127.0.0.1:3000")
        assert problem_of(made) == (403, "forbidden")
        preflight = {"origin": "http://127.0.0.1:3000", "access-control-request-method": "POST"}
        asked = await browser.client.options("/v1/chat/completions", headers=preflight)
        assert asked.status_code == 403
        assert not any(name.startswith("access-control-") for name in asked.headers)
        assert (await browser.ask("GET", "/c2l/conversations", origin=browser.url)).json()["conversations"] == []
        assert engine.asked == []


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
async def test_another_user_of_this_computer_can_make_no_link(tmp_path: Path) -> None:
    file = address_path(tmp_path / "credential.json")
    async with scripted_engine() as engine:
        async with paged(tmp_path, engine.url):
            assert file.stat().st_mode & 0o777 == 0o600
            first = read_address(file)
        assert not file.exists(), "expected it to go with the page"
        async with paged(tmp_path, engine.url):
            second = read_address(file)
        assert first is not None
        assert second is not None
        assert first.secret != second.secret


async def test_it_listens_on_the_loopback_only(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        port = int(browser.url.rpartition(":")[2])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address would be used
            own = probe.getsockname()[0]
        if not own.startswith("127."):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(own, port)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", port)


async def test_sessions_end_with_the_bridge(tmp_path: Path) -> None:
    async with scripted_engine() as engine:
        async with paged(tmp_path, engine.url) as (_, browser):
            cookie, key, link = browser.cookie, browser.key, browser.page.link()
        async with home(tmp_path, engine.url, page_port=0, page_root=build(tmp_path)) as at:
            again = Browser(at)
            async with again.client:
                # Whoever listened on the port meanwhile may have seen both.
                value = cookie.partition("=")[2]
                name = f"c2l-page-{again.url.rpartition(':')[2]}"
                fields = {"c2l-request": key, "cookie": f"{name}={value}"}
                answer = await again.client.get("/c2l/conversations", headers=fields)
                assert problem_of(answer) == (401, "unauthenticated")
                assert problem_of(await again.sign_in(link)) == (401, "unauthenticated")


async def test_signing_out_ends_what_the_session_does(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        async with browser.client.stream("GET", "/api/streaming/events", headers=browser.own) as status:
            lines = status.aiter_lines()
            while not (line := await anext(lines)).startswith("data: "):
                pass
            document = json.loads(line.removeprefix("data: "))
            assert (document["state"], document["bridges"][0]["id"]) == ("ready", "local")
            fields = dict(browser.own)
            out = await browser.ask("POST", "/api/auth/sign-out")
            assert out.status_code == 204
            assert "Max-Age=0" in out.headers["set-cookie"]
            async with asyncio.timeout(5):
                async for _line in lines:
                    pass
        assert problem_of(await browser.client.get("/c2l/conversations", headers=fields)) == (401, "unauthenticated")


async def read_over(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


@pytest.mark.parametrize("how", ["signed out", "pushed out"])
async def test_a_session_that_is_over_reads_no_further(tmp_path: Path, how: str) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (at, browser):
        state = (await browser.ask("GET", "/c2l/home")).json()
        target = f"/c2l/changes/events?epoch={state['epoch']}&since={state['newest']}"
        async with browser.client.stream("GET", target, headers=browser.own) as events:
            pieces = events.aiter_bytes()
            await anext(pieces)
            for _ in range(MAX_SESSIONS):
                other = Browser(at)
                async with other.client:
                    if how == "pushed out":
                        await other.sign_in()
            if how == "signed out":
                assert (await browser.ask("POST", "/api/auth/sign-out")).status_code == 204
            with pytest.raises(httpx.RemoteProtocolError):  # seen to be cut, and at once
                await asyncio.wait_for(read_over(pieces), 5)


async def test_the_oldest_session_goes_when_there_are_too_many(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (at, browser):
        for _ in range(MAX_SESSIONS):
            assert (await browser.ask("GET", "/api/auth/session")).json()["signed_in"] is True
            other = Browser(at)
            async with other.client:
                assert (await other.sign_in()).status_code == 200
        assert (await browser.ask("GET", "/api/auth/session")).json()["signed_in"] is False


# --- the port and the owner's command -----------------------------------------------------------------------------


async def test_a_taken_port_is_told_and_the_bridge_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        root = build(tmp_path)
        async with scripted_engine() as engine, home(tmp_path, engine.url, page_port=port, page_root=root) as at:
            assert at.bridge.page is None
            assert not address_path(tmp_path / "credential.json").exists()
            [said] = [record for record in caplog.records if "page of this machine is not served" in record.message]
            assert f"port {port} is taken" in str(vars(said)["fault"])
            assert at.bridge.home_api is not None


async def test_it_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        assert at.bridge.page is None


def asked_for(tmp_path: Path, *options: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["bridge", "page", "--no-browser", "--data-dir", str(tmp_path), *options])
    return status, out.getvalue(), err.getvalue()


async def test_the_owners_command_prints_a_link_that_works(tmp_path: Path) -> None:
    async with scripted_engine() as engine:
        async with paged(tmp_path, engine.url) as (at, _):
            status, out, _err = await asyncio.to_thread(asked_for, tmp_path)
            assert status == 0
            [link] = [word for word in out.split() if word.startswith("http")]
            assert link.startswith(page_of(at).address.url + "/sign-in#token=")
            browser = Browser(at)
            async with browser.client:
                assert (await browser.sign_in(link)).status_code == 200
        status, out, err = await asyncio.to_thread(asked_for, tmp_path)
        assert (status, out) == (1, "")
        assert "the bridge does not run" in err
        async with home(tmp_path, engine.url):
            status, out, err = await asyncio.to_thread(asked_for, tmp_path)
        assert (status, out) == (1, "")
        assert "serves no page" in err
