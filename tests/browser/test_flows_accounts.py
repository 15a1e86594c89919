"""What people do, in Chromium and at their machines' command line, with a real provider, Redis and API replicas."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import openai
import pytest
from playwright.sync_api import Browser, Cookie, Locator, Page, expect
from tests.support.deployment import (
    PROVIDER_NAME,
    Deployment,
    Part,
    await_connected,
    bridges,
    fake_browser,
    opened_page,
    paired,
    running_deployment,
    shown_code,
    sign_in,
)
from tests.support.engines import EngineProcess, demo_engine
from tests.support.long_answer import question
from tests.support.stack import wait_for

from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.cli.bridge_devices import LocalHome

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SOON = 2.0
"""Seconds within which a revocation holds at every replica."""
ADDRESSES = itertools.count()
QUESTION = "Connect this machine to your account?"
PACE = 20
"""Tokens a second of the answer that outlives every replica."""
RESTART = 7.5
"""Seconds of it for each of them."""


@pytest.fixture(scope="module", params=[1, 3], ids=["one-replica", "three-replicas"])
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    with running_deployment(request.param, engine={"tokens_per_second": 60}) as running:
        yield running


@dataclass
class Alice:
    """Somebody with a machine that runs."""

    client: httpx.Client
    home: str
    running: Part


@pytest.fixture(scope="module")
def alice(deployment: Deployment) -> Iterator[Alice]:
    with sign_in(deployment, "alice") as client:
        running = paired(deployment, client, "alices-tower")
        yield Alice(client, "alices-tower", running)
        running.stop()


@pytest.fixture(scope="module")
def slow_engine() -> Iterator[EngineProcess]:
    with demo_engine(load_seconds=0, prefill_seconds=0, tokens_per_second=10, models="slow:latest") as engine:
        yield engine


@dataclass
class People:
    """Browsers, a profile each."""

    chromium: Browser
    url: str
    faults: list[str] = field(default_factory=list)

    def page(self) -> Page:
        """Open a window in a profile of its own."""
        context = self.chromium.new_context(viewport={"width": 1100, "height": 800})
        page = context.new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        return page

    def sign_in(self, account: str) -> Page:
        """Sign in at the provider as a person does."""
        page = self.page()
        page.goto(self.url)
        sign_in_here(page, account)
        expect(page).to_have_url(f"{self.url}/")
        return page

    def close(self) -> None:
        for context in self.chromium.contexts:
            context.close()


def sign_in_here(page: Page, account: str) -> None:
    page.get_by_role("button", name=f"Sign in with {PROVIDER_NAME}").click()
    page.get_by_label("Account").fill(account)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def people(chromium: Browser, deployment: Deployment) -> Iterator[People]:
    made = People(chromium, deployment.url)
    yield made
    made.close()
    assert made.faults == []


def ask(page: Page, text: str) -> Locator:
    """Ask, and return the answer's article."""
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()
    return page.locator("article[data-outcome]").last


def pair_browser(page: Page, deployment: Deployment, home: str) -> None:
    """Pair a browser with a machine by a link of that machine's."""
    credential = deployment.credential(home)
    link = LocalHome(credential, BridgeIdentity.load(credential)).offer()
    page.goto(f"{deployment.url}/pair#{link.fragment}")
    page.get_by_role("button", name="Pair this browser").click()
    expect(page.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)
    page.get_by_role("link", name="To the chat").click()


def settings(page: Page) -> None:
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", name="Settings", exact=True)).to_be_visible()


def confirm(page: Page) -> float:
    """Press the dialog's Revoke; return when."""
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    return time.monotonic()


def at_every_replica(deployment: Deployment, holds: Callable[[httpx.Client], bool], began: float, what: str) -> None:
    """Check that something holds at every replica by SOON seconds after it was done."""
    for name in deployment.names:
        with deployment.replica(name) as client:
            left = max(0.1, began + SOON - time.monotonic())
            wait_for(lambda client=client: holds(client), within=left, what=f"{what} at replica {name}")


def decision(client: httpx.Client, key: str, target: str = "/v1/models") -> int:
    """Return what a replica tells the edge of a request with a key."""
    fields = {"x-original-method": "GET", "x-original-uri": target, "x-api-key": key}
    return client.get("/internal/authorize", headers=fields).status_code


def session_of(page: Page) -> httpx.Cookies:
    """Return a copy of the session cookie, as a thief would have it."""
    cookies: list[Cookie] = page.context.cookies()
    return httpx.Cookies({c["name"]: c["value"] for c in cookies if c["name"].endswith("c2l_session")})


# signing in and pairing


def test_a_machine_paired_by_a_code_answers(deployment: Deployment, people: People) -> None:
    page = people.sign_in("mallory")
    expect(page.get_by_test_id("status")).to_have_text("No machine")
    login = deployment.login("attic", "--no-browser")
    code = shown_code(login)
    page.goto(f"{deployment.url}/pair")
    page.get_by_label("Code").fill(code.lower().replace("-", " "))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("attic")
    expect(page.get_by_role("main")).to_contain_text("127.0.0.1")
    assert login.running, "expected nothing to happen before the click"
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="Approved")).to_be_visible()
    assert login.wait(20) == 0, login.said()
    bridge = deployment.bridge("attic")
    page.get_by_role("link", name="To the chat").click()
    expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)
    # The account is connected with the machine; this browser has yet to know its key.
    expect(page.get_by_role("heading", name="Pair this browser with your machine")).to_be_visible()
    pair_browser(page, deployment, "attic")
    answer = ask(page, "Hello there")
    expect(answer).to_have_attribute("data-outcome", "streaming")
    expect(answer.get_by_role("heading").nth(1)).to_be_visible()
    expect(answer).to_have_attribute("data-outcome", "streaming")  # it is read while it is written
    expect(answer).to_have_attribute("data-outcome", "done", timeout=30_000)
    assert bridge.stop() == 0
    expect(page.get_by_test_id("status")).to_have_text("Machine offline", timeout=20_000)


def test_a_machine_is_paired_by_its_own_browser_and_leaves(
    deployment: Deployment, people: People, alice: Alice
) -> None:
    environ, file = fake_browser(deployment.homes / "study-browser")
    login = deployment.login("study", environ=environ)
    page = people.page()
    page.goto(opened_page(login, file))
    sign_in_here(page, "alice")  # and comes back to the question
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    expect(page.get_by_text("A program on this computer opened this page.")).to_be_visible()
    assert "study" not in bridges(alice.client)
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Confirmed. You can close this window")).to_be_visible()
    assert page.url.startswith("http://127.0.0.1:")
    assert login.wait(20) == 0, login.said()
    assert "study" in bridges(alice.client)
    command = deployment.spawn("logout-study", login_words(login, "logout"))
    assert command.wait(20) == 0, command.said()
    assert "study" not in bridges(alice.client)


def login_words(login: Part, action: str) -> list[str]:
    """Return the command line of another action on the same machine."""
    words = [str(word) for word in login.process.args]  # type: ignore[union-attr] # we gave a list
    at, folder = words.index("login"), words.index("--data-dir")
    return [*words[:at], action, *words[at + 1 : at + 3], *words[folder : folder + 2]]


# keys


def test_a_key_made_in_the_page_is_limited_and_dies_at_once(
    deployment: Deployment, people: People, alice: Alice
) -> None:
    assert alice.running.running
    page = people.sign_in("alice")
    settings(page)
    page.get_by_role("button", name="Make a key").click()
    page.get_by_label("Name", exact=True).fill("Only demo")
    page.get_by_text("Limit what it may do").click()
    page.get_by_label("Ollama").uncheck()
    page.get_by_label("Anthropic-compatible").uncheck()
    page.get_by_label("Sealed, by connect").uncheck()
    page.get_by_label("Models").fill("demo:*")
    page.get_by_role("button", name="Make the key").click()
    key = page.get_by_test_id("new-key").inner_text()
    client = openai.OpenAI(base_url=f"{deployment.url}/v1", api_key=key, max_retries=0, timeout=20)
    assert [model.id for model in client.models.list()] == ["demo:latest"]
    said = client.chat.completions.create(
        model="demo:latest", messages=[{"role": "user", "content": "x"}], max_tokens=4
    )
    assert said.choices[0].message.content
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="other:latest", messages=[{"role": "user", "content": "x"}])
    for path in ("/ollama/api/tags", "/c2l/conversations", "/anthropic/v1/messages", "/e2e/any"):
        assert httpx.get(deployment.url + path, headers={"x-api-key": key}, timeout=20).status_code == 403, path
    for name in deployment.names:
        with deployment.replica(name) as replica:
            assert decision(replica, key) == 200
    page.get_by_role("button", name="Revoke Only demo").click()
    began = confirm(page)
    at_every_replica(deployment, lambda replica: decision(replica, key) == 401, began, "the key to be refused")
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    expect(page.get_by_text("Only demo was revoked")).to_be_visible()


# bridges


def test_a_machine_renamed_and_revoked_in_the_page_is_cut_and_stays_out(
    deployment: Deployment, people: People, alice: Alice
) -> None:
    machine = paired(deployment, alice.client, "barn")
    credential = deployment.credential("barn").read_bytes()
    page, other = people.sign_in("alice"), people.sign_in("alice")
    settings(other)
    settings(page)
    page.get_by_role("button", name="Rename barn").click()
    page.get_by_label("New name").fill("stable")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="stable").first).to_be_visible()
    expect(other.get_by_role("heading", name="stable").first).to_be_visible()  # told, whichever replica it hangs on
    page.get_by_role("button", name="Revoke stable").click()
    began = confirm(page)
    assert machine.wait(10) == 3, machine.said()
    assert time.monotonic() - began < SOON
    cookies = alice.client.cookies

    def gone(replica: httpx.Client) -> bool:
        return "stable" not in bridges(replica)

    for name in deployment.names:
        with deployment.replica(name, cookies) as replica:
            wait_for(lambda replica=replica: gone(replica), within=SOON, what=f"it to be gone at {name}")
    expect(other.get_by_role("heading", name="stable")).to_have_count(0)
    again = deployment.bridge("barn")
    assert again.wait(20) == 2, "expected it to have forgotten what is void"
    deployment.credential("barn").write_bytes(credential)
    again = deployment.bridge("barn")
    assert again.wait(20) == 3, again.said()
    assert "stable" not in bridges(alice.client)
    assert bridges(alice.client)[alice.home]["connected"], "expected the other machine to be let alone"


# sessions


def test_a_session_that_was_signed_out_is_dead_at_every_replica(deployment: Deployment, people: People) -> None:
    page = people.sign_in("alice")
    stolen = session_of(page)
    assert len(stolen) == 1

    def signed_in(name: str) -> bool:
        with deployment.replica(name, stolen) as client:
            return bool(client.get("/api/auth/session").json()["signed_in"])

    assert all(signed_in(name) for name in deployment.names)
    with page.expect_response("**/api/auth/sign-out"):
        page.get_by_role("button", name="Sign out").click()
    began = time.monotonic()
    for name in deployment.names:
        wait_for(lambda name=name: not signed_in(name), within=SOON, what=f"the session to be dead at {name}")
    assert time.monotonic() - began < SOON
    page.get_by_role("button", name="Sign out").click()  # the provider asks whether there too
    expect(page).to_have_url(f"{deployment.url}/sign-in")
    expect(page.get_by_role("button", name=f"Sign in with {PROVIDER_NAME}")).to_be_visible()
    page.goto(f"{deployment.url}/settings")
    expect(page.get_by_role("heading", name="Sign in to see your settings")).to_be_visible()


def test_bob_sees_nothing_of_alice(deployment: Deployment, people: People, alice: Alice) -> None:
    theirs = bridges(alice.client)[alice.home]["id"]
    page = people.sign_in("bob")
    expect(page.get_by_test_id("status")).to_have_text("No machine")
    settings(page)
    expect(page.get_by_role("heading", name="Settings", exact=True)).to_be_visible()
    expect(page.get_by_text(alice.home)).to_have_count(0)
    expect(page.get_by_text("Alice")).to_have_count(0)
    expect(page.get_by_role("link", name="Overview of this server")).to_have_count(0)
    cookies = session_of(page)
    for name in deployment.names:
        with deployment.replica(name, cookies, **{"c2l-request": "1", "origin": deployment.url}) as bob:
            assert bridges(bob) == {}
            assert bob.patch(f"/api/bridge/{theirs}", json={"name": "mine"}).status_code == 404
            assert bob.delete(f"/api/bridge/{theirs}").status_code == 404
            assert bob.get("/api/admin/overview").status_code == 403
            assert bob.get("/api/admin/audit").status_code == 403
            assert bob.post("/api/auth/keys", json={"name": "x", "bridge": theirs}).status_code >= 400
    with deployment.browser() as bob:
        bob.cookies.update(cookies)
        for path in ("/v1/models", "/ollama/api/tags", "/c2l/conversations"):
            answer = bob.get(path)
            assert answer.json()["type"] == "urn:c2l:problem:no-bridge-paired", path
    assert bridges(alice.client)[alice.home]["connected"]


# a provider that is away


def test_without_the_provider_who_is_signed_in_goes_on(deployment: Deployment, people: People, alice: Alice) -> None:
    page, stranger = people.sign_in("alice"), people.page()
    pair_browser(page, deployment, alice.home)
    expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)
    deployment.provider.stop()
    try:
        for name in deployment.names:
            wait_for(lambda name=name: not starts(deployment, name), within=20, what=f"{name} to notice")
        page.reload()
        expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)
        expect(ask(page, "Hello there").get_by_role("heading").first).to_be_visible()
        stranger.goto(deployment.url)
        stranger.get_by_role("button", name=f"Sign in with {PROVIDER_NAME}").click()
        expect(stranger.get_by_role("alert")).to_be_visible()
        assert "error=provider-unavailable" in stranger.url
    finally:
        deployment.provider.start()
    for name in deployment.names:
        wait_for(lambda name=name: starts(deployment, name), within=40, what=f"{name} to go on")
    sign_in_here(stranger, "bob")
    expect(stranger.get_by_test_id("status")).to_be_visible()
    assert bridges(alice.client)[alice.home]["connected"]


def starts(deployment: Deployment, name: str) -> bool:
    """Tell whether a replica sends a browser that wants to sign in to the provider."""
    time.sleep(0.2)
    address = f"198.51.100.{next(ADDRESSES) % 250}"  # another each time, since each may try so often only
    with deployment.replica(name, None, **{"x-forwarded-for": address}) as replica:
        target = str(replica.get("/api/auth/oidc/start").headers["location"])
    assert "error=" not in target or "provider-unavailable" in target
    return target.startswith(deployment.provider.issuer)


# replicas that die


def test_an_answer_outlives_every_replica(deployment: Deployment, people: People, slow_engine: EngineProcess) -> None:
    """Each replica is killed in mid-stream and started again: nobody's answer notices, and the status comes back."""
    with sign_in(deployment, "bob") as bob:
        machine = paired(deployment, bob, "bobs-shed", slow_engine.url)
        page = people.sign_in("bob")
        pair_browser(page, deployment, "bobs-shed")
        expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)
        made = bob.post("/api/auth/keys", json={"name": "Reader", "days": 1})
        tokens = round((len(deployment.names) + 1) * RESTART * PACE)
        reader = Reader(deployment.url, slow_engine.url, made.json()["key"], tokens)
        answer = ask(page, "Hello there")
        expect(answer.get_by_role("heading").first).to_be_visible(timeout=20_000)
        with reader.reading():
            for name in deployment.names:
                assert not reader.over, "expected the answer to be longer"
                deployment.parts[f"api-{name}"].kill()
                if len(deployment.names) > 1:
                    the_others_serve(bob, reader.key)
                deployment.start_api(name)
        assert reader.text == reader.expected
        expect(answer).to_have_attribute("data-outcome", "done", timeout=40_000)
        expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=30_000)
        await_connected(bob, "bobs-shed", machine)
        assert httpx.get(f"{deployment.url}/v1/models", headers={"x-api-key": reader.key}).status_code == 200
        bob.delete(f"/api/bridge/{bridges(bob)['bobs-shed']['id']}")
        assert machine.wait(10) == 3


def the_others_serve(client: httpx.Client, key: str) -> None:
    """Check that nobody notices that one replica is dead, whichever would have had the turn."""
    for _ in range(6):
        assert client.get("/api/auth/session").json()["signed_in"]
        assert client.get("/v1/models", headers={"x-api-key": key}).status_code == 200


@dataclass
class Reader:
    """Reads one long answer with a client that is not ours."""

    url: str
    engine: str
    key: str
    tokens: int
    text: str = ""
    over: bool = False

    @property
    def expected(self) -> str:
        """What the engine says to the same question."""
        return self._ask(self.engine, {}, 0, lambda _: None)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read while the block runs, and then to the end."""
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        wait_for(lambda: self.text, within=20, what="the answer to begin")
        yield
        thread.join(60)
        assert self.over

    def _read(self) -> None:
        def keep(text: str) -> None:
            self.text = text

        self._ask(f"{self.url}/ollama", {"x-api-key": self.key}, PACE, keep)
        self.over = True

    def _ask(self, url: str, headers: dict[str, str], pace: float, keep: Callable[[str], None]) -> str:
        body = question(self.tokens, pace) | {"model": "slow:latest"}
        text = ""
        with httpx.stream("POST", f"{url}/api/chat", json=body, headers=headers, timeout=30) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                text += json.loads(line)["message"]["content"]
                keep(text)
        return text
