import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.addresses import address_of, counted
from cloudtolocalllm.api.oidc import pending
from cloudtolocalllm.api.oidc.cached import FORCED, FRESH, RETRY, STALE, Cached
from cloudtolocalllm.api.oidc.config import OidcConfig, is_endpoint, parse_issuer
from cloudtolocalllm.api.oidc.pending import LIFETIME, Pending, local_path
from cloudtolocalllm.api.oidc.provider import read_metadata
from cloudtolocalllm.api.oidc.transport import ProviderUnavailableError
from cloudtolocalllm.auth.sessions import Sealer, SealingKey, SessionRefusedError, new_session

KEY = SealingKey("k1", bytes(range(32)))
NOW = 1_800_000_000.0


# what is fetched and kept


class Source:
    """Gives a new object each time, or fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False

    async def fetch(self) -> object:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise ProviderUnavailableError("down")
        return object()


async def test_a_value_is_fetched_once_for_all_who_ask_at_once() -> None:
    source = Source()
    cached = Cached(source.fetch, FakeClock())
    found = await asyncio.gather(*(cached.get() for _ in range(10)))
    assert len(set(map(id, found))) == 1
    assert source.asked == 1


async def test_it_is_fetched_again_when_it_is_old() -> None:
    source, clock = Source(), FakeClock()
    cached = Cached(source.fetch, clock)
    first = await cached.get()
    clock.advance(FRESH - 1)
    assert await cached.get() is first
    clock.advance(2)
    assert await cached.get() is not first


async def test_an_old_one_does_while_there_is_no_newer_but_not_for_ever() -> None:
    source, clock = Source(), FakeClock()
    cached = Cached(source.fetch, clock)
    first = await cached.get()
    source.fails = True
    clock.advance(FRESH + 1)
    assert await cached.get() is first
    clock.advance(STALE)
    with pytest.raises(ProviderUnavailableError):
        await cached.get()
    source.fails = False
    clock.advance(RETRY)
    assert await cached.get() is not first


async def test_whoever_is_down_is_not_asked_by_everybody() -> None:
    source, clock = Source(), FakeClock()
    source.fails = True
    cached = Cached(source.fetch, clock)
    results = await asyncio.gather(*(cached.get() for _ in range(10)), return_exceptions=True)
    assert all(isinstance(result, ProviderUnavailableError) for result in results)
    assert source.asked == 1
    clock.advance(RETRY)
    with pytest.raises(ProviderUnavailableError):
        await cached.get()
    assert source.asked == 2


async def test_unknown_keys_cause_one_fetch_in_thirty_seconds() -> None:
    source, clock = Source(), FakeClock()
    cached = Cached(source.fetch, clock)
    first = await cached.get()
    newer = await asyncio.gather(*(cached.newer(first) for _ in range(20)))
    assert source.asked == 2
    assert set(map(id, newer)) == {id(newer[0])}
    latest = newer[0]
    assert latest is not None
    for _ in range(29):
        assert await cached.newer(latest) is None
        clock.advance(FORCED / 30)
    assert source.asked == 2
    clock.advance(2)
    assert await cached.newer(latest) not in (None, latest)
    assert source.asked == 3


# the cookie of a sign-in under way


def test_a_sign_in_opens_in_its_time_only() -> None:
    sealer = Sealer((KEY,))
    begun = pending.begin("/settings", now=NOW)
    text = pending.seal(sealer, begun)
    assert pending.unseal(sealer, text, now=NOW + LIFETIME - 1) == begun
    assert pending.unseal(sealer, text, now=NOW + LIFETIME) is None
    assert pending.unseal(Sealer((SealingKey("k1", bytes(32)),)), text, now=NOW) is None
    for other in ("", "x", text + "x", text[:-2]):
        assert pending.unseal(sealer, other, now=NOW) is None
    assert len({begun.state, begun.nonce, begun.verifier}) == 3
    assert begun.state not in repr(begun)


def test_neither_cookie_stands_for_the_other() -> None:
    sealer = Sealer((KEY,))
    login = pending.seal(sealer, pending.begin("/", now=NOW))
    session = sealer.seal(new_session("u_a", now=NOW))
    with pytest.raises(SessionRefusedError):
        sealer.open(login, now=NOW)
    assert pending.unseal(sealer, session, now=NOW) is None
    content = sealer.open_text("c2l-login", login)
    assert pending.unseal(sealer, sealer.seal_text("c2l-login", content), now=NOW) is not None
    assert pending.unseal(sealer, sealer.seal_text("c2l-other", content), now=NOW) is None
    assert pending.unseal(sealer, sealer.seal_text("c2l-login", '["a"]'), now=NOW) is None
    assert pending.unseal(sealer, sealer.seal_text("c2l-login", "{"), now=NOW) is None


@pytest.mark.parametrize("path", ["/", "/pair?code=BCDF-GHJK", "/settings#x", "/a//b", "/%2F%2Fevil.example"])
def test_paths_of_our_own_pages(path: str) -> None:
    assert local_path(path) == path


@given(st.text(max_size=20) | st.text(alphabet="/\\:@.a\t\r\n", max_size=8))
def test_a_browser_stays_with_us(text: str) -> None:
    path = local_path(text)
    # What a browser makes of a Location (WHATWG URL): it drops tabs and line ends and takes a backslash for a slash.
    seen = path.replace("\t", "").replace("\r", "").replace("\n", "").replace("\\", "/")
    assert seen == path
    assert seen.startswith("/")
    assert not seen.startswith("//")


def test_a_pending_sign_in_of_another_shape_is_none() -> None:
    sealer = Sealer((KEY,))
    assert (
        pending.unseal(sealer, pending.seal(sealer, Pending("a", "b", "c", "/", int(NOW) + 1)), now=NOW) is not None
    )


# which provider


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.eu.auth0.com/",
        "https://login.example.org/realms/home",
        "http://127.0.0.1:9000",
        "http://[::1]:9000",
        "http://localhost:9000/x",
    ],
)
def test_issuers_that_may_be_used(text: str) -> None:
    assert parse_issuer(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "example.org",
        "http://login.example.org",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://10.0.0.1",
        "https://user@example.org",
        "https://example.org/?x=1",
        "https://example.org/#x",
        "https://",
        "ftp://127.0.0.1",
        "https://[",
        "https://example.org:x",
    ],
)
def test_issuers_that_may_not(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_issuer(text)


CONFIG = OidcConfig("https://login.example.org/", "c2l", "s", ("openid",), "Example", "https://app.example.org")
DOCUMENT: dict[str, Any] = {
    "issuer": "https://login.example.org/",
    "authorization_endpoint": "https://login.example.org/authorize",
    "token_endpoint": "https://tokens.example.org/token",
    "jwks_uri": "https://login.example.org/keys",
}


def test_a_discovery_document_is_read() -> None:
    metadata = read_metadata(DOCUMENT, CONFIG)
    assert (metadata.algorithms, metadata.userinfo, metadata.end_session) == (("RS256",), None, None)
    assert (metadata.names_issuer, metadata.secret_in_form, metadata.scopes) == (False, False, None)
    more = {
        **DOCUMENT,
        "id_token_signing_alg_values_supported": ["HS256", "ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "authorization_response_iss_parameter_supported": True,
        "scopes_supported": ["openid", 1],
        "code_challenge_methods_supported": ["S256"],
    }
    metadata = read_metadata(more, CONFIG)
    assert (metadata.algorithms, metadata.scopes) == (("ES256",), ("openid",))
    assert (metadata.names_issuer, metadata.secret_in_form) == (True, True)


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://login.example.org"},
        {"issuer": None},
        {"issuer": ["https://login.example.org/"]},
        {"authorization_endpoint": "http://login.example.org/authorize"},
        {"authorization_endpoint": "http://127.0.0.1/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://login.example.org/authorize#x"},
        {"authorization_endpoint": "https://login.example.org/\r\nx: y"},
        {"authorization_endpoint": None},
        {"token_endpoint": 1},
        {"jwks_uri": "file:///etc/passwd"},
        {"userinfo_endpoint": "ftp://x"},
        {"end_session_endpoint": "//evil.example"},
        {"id_token_signing_alg_values_supported": ["HS256", "none"]},
        {"code_challenge_methods_supported": ["plain"]},
    ],
)
def test_a_discovery_document_that_does_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_metadata({**DOCUMENT, **change}, CONFIG)


def test_endpoints_on_loopback_need_an_issuer_there() -> None:
    assert is_endpoint("http://127.0.0.1:1/x", plain=True)
    assert not is_endpoint("http://127.0.0.1:1/x", plain=False)
    assert not is_endpoint("http://example.org/x", plain=True)


def test_the_client_secret_is_in_no_repr() -> None:
    assert "'s'" not in repr(CONFIG)
    assert CONFIG.redirect_uri == "https://app.example.org/api/auth/oidc/callback"


# addresses


def test_the_address_is_the_one_that_the_edge_adds() -> None:
    assert address_of({b"x-forwarded-for": b"192.0.2.1"}) == "192.0.2.1"
    assert address_of({b"x-forwarded-for": b"1.1.1.1, 192.0.2.1"}) == "192.0.2.1"
    assert address_of({b"x-forwarded-for": b"x"}) == address_of({}) == ""


def test_an_address_is_counted_without_being_kept() -> None:
    key = bytes(32)
    assert counted(key, "192.0.2.1") != counted(key, "192.0.2.2")
    assert counted(key, "192.0.2.1") != counted(bytes(31) + b"\1", "192.0.2.1")
    assert "192" not in counted(key, "192.0.2.1")
    assert counted(key, "2001:db8::1") == counted(key, "2001:db8::ffff")  # one household's
    assert counted(key, "2001:db8::1") != counted(key, "2001:db8:0:1::1")
