"""Sessions that a real provider began: who gets one, how they go on, and how they end."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.support.api_parts import MARK, problem, running_api
from tests.support.oidc_place import (
    CALLBACK,
    LOGOUT,
    START,
    Place,
    another_process,
    failed,
    failed_or_not,
    keep,
    place,
    status,
)
from tests.support.oidc_provider import (
    CLIENT_ID,
    sign_out_at_provider,
)

from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.revocations import Revocations, blocked_member
from cloudtolocalllm.auth.sessions import COOKIE
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.settings import SettingsError


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as made:
        yield made


# going on


async def test_the_provider_is_asked_again_once_in_a_while(here: Place) -> None:
    async with here.browser() as browser:
        await here.sign_in(browser, "alice")
        first = here.session_of(browser)
        await status(browser)
        assert here.provider.requests()["/token"] == 1  # it is too early
        here.age(browser)
        answers = await asyncio.gather(*(browser.get("/api/auth/session") for _ in range(8)))
        assert all(answer.json()["signed_in"] for answer in answers)
        assert here.provider.requests()["/token"] == 2  # one of eight at once
        assert sum("set-cookie" in answer.headers for answer in answers) == 1
        second = here.session_of(browser)
        assert (second.id, second.user, second.expires) == (first.id, first.user, first.expires)
        assert second.refresh_token != first.refresh_token
        assert second.refreshed >= first.refreshed


async def test_somebody_whom_the_provider_lets_no_more_is_signed_out(here: Place) -> None:
    async with here.browser() as browser, here.browser() as copy:
        await here.sign_in(browser, "bob")
        keep(copy, browser.cookies[COOKIE])
        here.provider.disable("bob")
        assert (await status(copy))["signed_in"] is True
        here.age(browser)
        response = await browser.get("/api/auth/session")
        assert response.json()["signed_in"] is False
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert (await status(copy))["signed_in"] is False


async def test_a_refresh_that_gives_another_persons_tokens_ends_the_session(here: Place) -> None:
    async with here.browser() as alice, here.browser() as bob:
        await here.sign_in(alice, "alice")
        await here.sign_in(bob, "bob")
        foreign = here.session_of(alice).refresh_token
        keep(bob, here.sealer.seal(replace(here.session_of(bob), refresh_token=foreign)))
        here.age(bob)
        assert (await status(bob))["signed_in"] is False


async def test_without_the_provider_people_go_on_and_sign_in_says_why_not(here: Place) -> None:
    async with here.browser() as browser, here.browser() as stranger:
        await here.sign_in(browser, "alice")
        begun = await here.to_callback(stranger, "bob")
        here.provider.stop()
        here.age(browser)
        assert (await status(browser))["signed_in"] is True
        assert (await browser.get("/api/bridge")).status_code == 200
        assert failed(await stranger.get(begun)) == "provider-unavailable"
        signed_out = await browser.post("/api/auth/sign-out", headers=MARK)
        assert signed_out.status_code == 200
        assert (await status(browser))["signed_in"] is False


async def test_a_provider_that_was_never_there(tmp_path: Path) -> None:
    async with place(tmp_path) as there, there.browser() as browser:
        there.provider.stop()
        assert failed(await browser.get(START)) == "provider-unavailable"
        assert (await status(browser))["signed_in"] is False
        there.provider.start()
        codes = []
        for _ in range(15):  # it is asked again after a moment
            codes.append(failed_or_not(await browser.get(START)))
            if codes[-1] is None:
                break
            await asyncio.sleep(0.5)
        assert codes[-1] is None


async def test_the_providers_keys_change_in_mid_run(here: Place) -> None:
    async with here.browser() as one, here.browser() as other:
        await here.sign_in(one, "alice")
        assert here.provider.requests()["/jwks"] == 1
        here.provider.rotate()
        assert failed_or_not(await here.sign_in(other, "bob")) is None
        assert here.provider.requests()["/jwks"] == 2
        assert (await status(one))["signed_in"] is True


async def test_a_flood_of_unknown_keys_costs_one_request(here: Place) -> None:
    async with here.browser() as browser:
        await here.sign_in(browser, "alice")
        for number in range(40):
            forged = token({"alg": "RS256", "kid": f"k{number}", "typ": "logout+jwt"}, {"iss": here.provider.issuer})
            assert problem(await browser.post(LOGOUT, data={"logout_token": forged})) == (400, "bad-request")
        assert here.provider.requests()["/jwks"] == 2


def token(header: dict[str, Any], claims: dict[str, Any]) -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    return f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}.{part(bytes(256))}"


# signing out


async def test_signing_out_ends_the_providers_session_too(here: Place) -> None:
    async with here.browser() as browser:
        await here.sign_in(browser, "alice")
        done = await browser.post("/api/auth/sign-out", headers=MARK)
        target = done.json()["redirect_to"]
        assert target.startswith(f"{here.provider.issuer}/session/end?")
        assert (await status(browser))["signed_in"] is False
        # without it the provider would send the browser straight back, signed in
        assert await sign_out_at_provider(browser, target) == f"{here.url}/sign-in"
        start = await browser.get(START)
        page = await browser.get(start.headers["location"], follow_redirects=True)
        assert (page.status_code, "<title>Provider</title>" in page.text) == (200, True)


async def test_signing_out_at_the_provider_ends_the_session_here(here: Place) -> None:
    async with here.browser() as browser, here.browser() as other:
        await here.sign_in(browser, "alice")
        await here.sign_in(other, "alice")
        query = urlencode({"client_id": CLIENT_ID, "post_logout_redirect_uri": f"{here.url}/sign-in"})
        await sign_out_at_provider(browser, f"{here.provider.issuer}/session/end?{query}")
        assert (await status(browser))["signed_in"] is False
        assert (await status(other))["signed_in"] is True  # it came of another session with the provider
        assert failed_or_not(await here.sign_in(browser, "alice")) is None


async def test_a_logout_without_a_token_is_refused(here: Place) -> None:
    async with here.browser() as browser:
        for form in ({}, {"logout_token": ""}, {"logout_token": "x.y.z"}, {"token": "a"}):
            assert problem(await browser.post(LOGOUT, data=form)) == (400, "bad-request")
        assert problem(await browser.post(LOGOUT, content=b"\xff\xfe")) == (400, "bad-request")


# who may


async def test_the_first_is_administrator_where_no_claim_says_who(tmp_path: Path) -> None:
    async with place(tmp_path, admin="first") as there:
        admins = []
        for account in ("bob", "alice", "bob"):
            async with there.browser() as browser:
                await there.sign_in(browser, account)
                admins.append((await status(browser))["admin"])
        assert admins == [True, False, True]


@pytest.mark.parametrize(
    ("settings", "in_", "out"),
    [
        ({"allow_emails": ("BOB@example.test",)}, ["alice", "bob"], ["mallory"]),  # alice is administrator
        ({"allow_domains": ("example.test",)}, ["bob"], ["mallory"]),  # whose e-mail is not verified
        ({"allow_domains": ("ample.test", "test")}, [], ["bob"]),
        ({"allow_groups": ("staff",)}, ["bob"], ["mallory"]),
        ({"allow_groups": ("staff",), "groups_claim": "email"}, [], ["bob"]),
        ({"sign_up": "closed"}, ["alice"], ["bob", "mallory"]),
    ],
)
async def test_the_policy_decides(tmp_path: Path, settings: dict[str, Any], in_: list[str], out: list[str]) -> None:
    async with place(tmp_path, **{"sign_up": "allow-list", **settings}) as there:
        for account in (*in_, *out):
            async with there.browser() as browser:
                code = failed_or_not(await there.sign_in(browser, account))
                assert code == (None if account in in_ else "not-allowed"), account
                assert (COOKIE in browser.cookies) == (account in in_)


async def test_a_stranger_on_no_list_does_not_become_the_first_administrator(tmp_path: Path) -> None:
    there_are: dict[str, Any] = {"sign_up": "allow-list", "allow_emails": ("bob@example.test",), "admin": "first"}
    async with place(tmp_path, **there_are) as there:
        async with there.browser() as browser:
            assert failed(await there.sign_in(browser, "mallory")) == "not-allowed"
        async with there.browser() as browser:
            await there.sign_in(browser, "bob")
            assert (await status(browser))["admin"] is True


async def test_closed_lets_in_who_has_a_machine_paired(here: Place) -> None:
    async with here.browser() as browser:
        await here.sign_in(browser, "bob")
        await here.api.pair((await status(browser))["user"])
    async with another_process(here, sign_up="closed") as url:
        for account, code in (("bob", None), ("mallory", "not-allowed")):
            async with here.browser() as browser:
                callback = await here.to_callback(browser, account)
                assert failed_or_not(await browser.get(callback.replace(here.url, url))) == code


async def test_a_session_and_its_end_hold_in_every_process(here: Place) -> None:
    async with another_process(here) as url, here.browser() as browser:
        callback = await here.to_callback(browser, "alice")
        assert (
            failed_or_not(await browser.get(callback.replace(here.url, url))) is None
        )  # begun there, completed here
        assert (await status(browser))["signed_in"] is True
        await browser.get(callback)  # used up in the one, it is in the other
        cookie = browser.cookies[COOKIE]
        assert (await browser.post(f"{url}/api/auth/sign-out", headers=MARK)).status_code == 200
        keep(browser, cookie)
        for _ in range(30):  # the other process is told, or looks once a second
            if not (await status(browser))["signed_in"]:
                break
            await asyncio.sleep(0.1)
        assert (await status(browser))["signed_in"] is False


async def test_somebody_taken_off_the_list_is_signed_out_when_next_asked_about(here: Place) -> None:
    async with here.browser() as browser:
        await here.sign_in(browser, "bob")
        here.age(browser)
        cookie = browser.cookies[COOKIE]
        changed = {"sign_up": "allow-list", "allow_emails": ("alice@example.test",)}
        async with another_process(here, **changed) as url:
            assert (await browser.get(f"{url}/api/auth/session")).json()["signed_in"] is False
            keep(browser, cookie)
            assert (await browser.get(f"{url}/api/auth/session")).json()["signed_in"] is False


async def test_a_blocked_person_does_not_come_in(here: Place) -> None:
    async with here.browser() as browser:
        await here.sign_in(browser, "bob")
        user = (await status(browser))["user"]
    elsewhere = Revocations(here.api.state, LocalBus(), SystemClock())
    await elsewhere.add(blocked_member(user), time.time() + 60)
    for _ in range(10):  # until the process has looked
        async with here.browser() as browser:
            code = failed_or_not(await here.sign_in(browser, "bob"))
            if code is not None:
                break
            await asyncio.sleep(0.4)
    assert code == "not-allowed"


async def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    for more, wanted in (
        ({"oidc_issuer": "https://x.example"}, "CLIENT_ID"),
        ({"oidc_issuer": "https://x.example", "oidc_client_id": "x", "sign_up": "allow-list"}, "ALLOW_EMAILS"),
        ({"oidc_issuer": "https://x.example", "oidc_client_id": "x", "oidc_scopes": "email"}, "openid"),
    ):
        with pytest.RaisesGroup(pytest.RaisesExc(SettingsError, match=wanted)):
            async with running_api(tmp_path, **more):
                pass


async def test_without_a_provider_its_routes_are_not_there(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api, api.client() as browser:
        for target in (START, f"{CALLBACK}?state=x&code=y"):
            assert problem(await browser.get(target)) == (404, "not-found")
        assert problem(await browser.post(LOGOUT, data={"logout_token": "x"})) == (404, "not-found")
        assert (await browser.get("/api/auth/session")).json()["sign_in"] == "link"
