"""Sign-in with a real provider (npm oidc-provider), by a browser that is httpx."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from tests.support.api_parts import MARK, running_api
from tests.support.oidc_place import CALLBACK, START, Place, failed, failed_or_not, place, status
from tests.support.oidc_provider import (
    CLIENT_ID,
    refuse_at_provider,
)

from cloudtolocalllm.api.oidc import pending
from cloudtolocalllm.auth.sessions import COOKIE


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as made:
        yield made


# signing in


async def test_alice_signs_in(here: Place) -> None:
    async with here.browser() as browser:
        before = await status(browser)
        assert before["signed_in"] is False
        assert before["providers"] == [{"id": "oidc", "name": "Example"}]
        assert before["sign_in"] == "oidc"
        done = await here.sign_in(browser, "alice", "/pair?code=BCDF-GHJK")
        assert (done.status_code, done.headers["location"]) == (302, "/pair?code=BCDF-GHJK")
        cookies = done.headers.get_list("set-cookie")
        (session,) = [line for line in cookies if line.startswith(COOKIE + "=")]
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(session.split("; "))
        (login,) = [line for line in cookies if line.startswith("c2l_login=")]
        assert "Max-Age=0" in login
        after = await status(browser)
        assert (after["signed_in"], after["admin"]) == (True, True)
        assert (after["name"], after["email"]) == ("Alice Example", "alice@example.test")
        assert after["user"].startswith("u_")
        assert (await browser.get("/api/bridge")).status_code != 401


async def test_no_token_reaches_the_browser_in_the_clear(here: Place) -> None:
    async with here.browser() as browser:
        callback = await here.to_callback(browser, "alice")
        login = browser.cookies["c2l_login"]
        done = await browser.get(callback)
        session = here.session_of(browser)
        seen = login + str(done.headers) + browser.cookies[COOKIE]
        assert session.refresh_token
        assert session.refresh_token not in seen
        assert session.email not in seen


async def test_who_somebody_is_stays_the_same_and_is_no_others(here: Place) -> None:
    users = []
    for account in ("alice", "bob", "alice"):
        async with here.browser() as browser:
            await here.sign_in(browser, account)
            now = await status(browser)
            users.append((now["user"], now["admin"]))
    assert users[0] == users[2] != users[1]
    assert [admin for _, admin in users] == [True, False, True]


async def test_what_the_id_token_leaves_out_is_asked_for(tmp_path: Path) -> None:
    async with place(tmp_path, conform=True) as there, there.browser() as browser:
        await there.sign_in(browser, "alice")
        now = await status(browser)
        assert (now["name"], now["email"], now["admin"]) == ("Alice Example", "alice@example.test", True)
        assert there.provider.requests()["/me"] == 1


async def test_nothing_of_a_person_is_kept(here: Place) -> None:
    async with here.browser() as browser:
        await here.sign_in(browser, "alice")
        refresh_token = here.session_of(browser).refresh_token
        here.age(browser)
        await status(browser)
        await browser.post("/api/auth/sign-out", headers=MARK)
    kept = b"".join(path.read_bytes() for path in here.api.settings.data_dir.rglob("*") if path.is_file())
    assert kept
    for text in ("alice", "Alice", "example.test", refresh_token):
        assert text.encode() not in kept


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/%0d%0aset-cookie:x\r\nx: y",
        "\\\\evil.example",
        " /x",
        "",
        "/\t/evil.example",
        "/" + "x" * 600,
        "/api/auth/oidc/start",
    ],
)
async def test_it_returns_to_our_own_pages_only(here: Place, target: str) -> None:
    async with here.browser() as browser:
        assert (await here.sign_in(browser, "bob", target)).headers["location"] == "/"


async def test_on_https_the_cookie_is_the_hosts_alone(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        settings = there.api.settings
        public = "https://app.example.test"
        more = {
            "oidc_issuer": settings.oidc_issuer,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret_file": settings.oidc_client_secret_file,
        }
        folder = tmp_path / "b"
        folder.mkdir()
        async with running_api(folder, public_url=public, **more) as api, api.client() as browser:
            start = await browser.get(START)
            assert f"redirect_uri={urlencode({'': public + CALLBACK})[1:]}" in start.headers["location"]
            parts = start.headers["set-cookie"].split("; ")
            assert parts[0].startswith("__Host-c2l_login=")
            assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(parts)
            assert "Domain" not in start.headers["set-cookie"]


# callbacks that are not what they should be


async def test_a_callback_is_good_once(here: Place) -> None:
    async with here.browser() as browser:
        callback = await here.to_callback(browser, "alice")
        login = browser.cookies["c2l_login"]
        assert failed_or_not(await browser.get(callback)) is None
        async with here.browser() as again:
            again.cookies.set("c2l_login", login, domain="127.0.0.1", path="/")
            assert failed(await again.get(callback)) == "expired"
            assert COOKIE not in again.cookies


async def test_another_browsers_callback_signs_nobody_in(here: Place) -> None:
    async with here.browser() as mallory, here.browser() as victim:
        callback = await here.to_callback(mallory, "mallory")
        assert failed(await victim.get(callback)) == "expired"
        await victim.get(START)  # nor when the victim is signing in at that moment
        assert failed(await victim.get(callback)) == "expired"
        assert COOKIE not in victim.cookies
        assert failed_or_not(await mallory.get(callback)) is None  # and it was not used up by trying


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"state": "x" * 43}, "expired"),
        ({"state": None}, "expired"),
        ({"state": "\N{KELVIN SIGN}"}, "expired"),
        ({"iss": "https://evil.example"}, "failed"),
        ({"iss": None}, "failed"),
        ({"code": None}, "failed"),
        ({"code": "x"}, "failed"),
        ({"code": None, "error": "access_denied"}, "refused"),
        ({"code": None, "error": "temporarily_unavailable"}, "provider-unavailable"),
        ({"code": None, "error": "<script>"}, "failed"),
    ],
)
async def test_a_callback_that_was_tampered_with(here: Place, change: dict[str, str | None], code: str) -> None:
    async with here.browser() as browser:
        callback = await here.to_callback(browser, "alice")
        query = {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}
        changed = {name: value for name, value in {**query, **change}.items() if value is not None}
        assert failed(await browser.get(f"{CALLBACK}?{urlencode(changed)}")) == code
        assert COOKIE not in browser.cookies


async def test_a_parameter_that_comes_twice_is_refused(here: Place) -> None:
    async with here.browser() as browser:
        callback = await here.to_callback(browser, "alice")
        for more in ("&state=x", "&code=x", "&iss=x"):
            assert failed(await browser.get(callback + more)) == "failed"
        assert failed(await browser.get(CALLBACK)) == "failed"


@pytest.mark.parametrize("part", ["nonce", "verifier"])
async def test_an_answer_to_another_request_is_refused(here: Place, part: str) -> None:
    async with here.browser() as browser:
        callback = await here.to_callback(browser, "alice")
        begun = pending.unseal(here.sealer, browser.cookies["c2l_login"], now=time.time())
        assert begun is not None
        changed: dict[str, Any] = {part: "x" * 43}
        other = replace(begun, **changed)
        browser.cookies.delete("c2l_login")
        browser.cookies.set("c2l_login", pending.seal(here.sealer, other), domain="127.0.0.1", path="/")
        assert failed(await browser.get(callback)) == "failed"
        assert COOKIE not in browser.cookies


async def test_somebody_who_cancels_is_told_so(here: Place) -> None:
    async with here.browser() as browser:
        start = await browser.get(START, params={"return_to": "/settings"})
        back = await refuse_at_provider(browser, start.headers["location"])
        response = await browser.get(back)
        assert failed(response) == "refused"
        assert response.headers["location"].endswith("return_to=%2Fsettings")


async def test_sign_ins_are_limited_for_each_address(here: Place) -> None:
    async with here.browser() as browser:
        one, other = {"x-forwarded-for": "192.0.2.1"}, {"x-forwarded-for": "192.0.2.2"}
        codes = [(await browser.get(START, headers=one)).headers["location"] for _ in range(25)]
        assert sum("rate-limited" in code for code in codes) == 5
        assert "rate-limited" not in (await browser.get(START, headers=other)).headers["location"]
