from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api import identity as identities
from cloudtolocalllm.api.browser import AmbiguousError
from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.identity import Identifier, Identity, Via, is_bridge
from cloudtolocalllm.api.revocations import (
    Revocations,
    blocked_member,
    bridge_member,
    key_member,
    provider_session_member,
    session_member,
)
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.auth.keys import DAY, KeyClaims, KeyScope, KeyVerifier, mint_key
from cloudtolocalllm.auth.sessions import LIFETIME, Sealer, Session, new_sealing_key, new_session
from cloudtolocalllm.auth.signing import KeyRing

USER = "u_guq5pi4vzry6glg2sssi"
OTHER = "u_aaaapi4vzry6glg2sssi"


class Case:
    def __init__(self, state: SqliteState, clock: FakeClock) -> None:
        self.clock = clock
        self.ring = KeyRing.generate()
        self.sealer = Sealer((new_sealing_key(),))
        self.revocations = Revocations(state, LocalBus(), clock)
        self.identifier = self.another(secure=False)
        self.key, self.key_text = self.mint(USER)
        self.session = new_session(USER, now=clock.now)
        self.cookie = f"c2l_session={self.sealer.seal(self.session)}"
        self.credential, _ = credentials.issue(
            self.ring, bridge="k2qxv7hd4m3a", user=USER, thumbprint=ProofKey.generate().thumbprint, now=clock.now
        )

    def another(self, *, secure: bool) -> Identifier:
        verifier = KeyVerifier(self.ring, self.clock)
        return Identifier(self.sealer, verifier, self.revocations, self.clock, secure=secure)

    def mint(self, user: str, *, scope: KeyScope | None = None, lifetime: float = DAY) -> tuple[KeyClaims, str]:
        scope = scope or KeyScope()
        return mint_key(self.ring, user=user, scope=scope, lifetime=lifetime, now=self.clock.now)

    def of(self, **fields: str) -> Identity | None:
        return self.identifier.identify({k.replace("_", "-").encode(): v.encode() for k, v in fields.items()})

    def known(self, **fields: str) -> Identity:
        identity = self.of(**fields)
        assert identity is not None
        return identity


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    clock = FakeClock()
    state = SqliteState(tmp_path / "state.db", clock=clock)
    yield Case(state, clock)
    await state.close()


def test_each_way_in(case: Case) -> None:
    claims = case.key
    by_key = Identity(Via.KEY, USER, claims.id, claims.expires, claims.issued, key=claims)
    assert case.of(authorization=f"Bearer {case.key_text}") == by_key
    assert case.of(authorization=f"bearer {case.key_text}") == by_key
    assert case.of(x_api_key=case.key_text) == by_key
    assert case.of(x_api_key=case.key_text, authorization=f"Bearer {case.key_text}") == by_key
    session = case.session
    by_session = Identity(Via.SESSION, USER, session.id, session.expires, session.issued, session=session)
    assert case.of(cookie=case.cookie) == by_session
    assert case.of() is None


def test_a_key_brings_its_scope_along(case: Case) -> None:
    scope = KeyScope(("/v1/",), ("qwen*",), 60, 1000, "k2qxv7hd4m3a")
    _, text = case.mint(USER, scope=scope)
    identity = case.known(x_api_key=text)
    assert identity.key is not None
    assert identity.key.scope == scope


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer x{}", "Token {}", "Bearer {}x", "DPoP {}"]
)
def test_a_wrong_key_is_nobody_and_does_not_fall_back_to_the_cookie(case: Case, authorization: str) -> None:
    text = authorization.format(case.key_text)
    assert case.of(authorization=text) is None
    assert case.of(authorization=text, cookie=case.cookie) is None


def test_a_right_key_wins_over_a_cookie(case: Case) -> None:
    assert case.known(authorization=f"Bearer {case.key_text}", cookie="c2l_session=nonsense").via is Via.KEY


def test_a_key_with_anothers_signature_or_of_another_ring_is_nobody(case: Case) -> None:
    other, other_text = case.mint(OTHER)
    head, signature = case.key_text.rpartition(".")[::2]
    assert case.of(x_api_key=f"{head}.{other_text.rpartition('.')[2]}") is None
    assert case.of(x_api_key=f"{other_text.rpartition('.')[0]}.{signature}") is None
    assert case.known(x_api_key=other_text).user == other.user == OTHER
    _, foreign = mint_key(KeyRing.generate(), user=USER, scope=KeyScope(), lifetime=DAY, now=case.clock.now)
    assert case.of(x_api_key=foreign) is None


def test_a_bridges_credential_without_a_proof_is_nobody(case: Case) -> None:
    for text in (case.credential, f"c2l_{case.credential}"):
        assert case.of(authorization=f"Bearer {text}") is None
        assert case.of(authorization=f"DPoP {text}") is None
        assert case.of(x_api_key=text) is None
    assert case.of(authorization=f"DPoP {case.credential}", cookie=case.cookie) is None


def test_a_bridge_is_told_by_the_scheme(case: Case) -> None:
    assert is_bridge({b"authorization": b"DPoP x"})
    assert is_bridge({b"authorization": b"dpop x"})
    assert not is_bridge({b"authorization": b"Bearer DPoP"})
    assert not is_bridge({b"dpop": b"x"})
    assert not is_bridge({})


def test_different_keys_are_ambiguous(case: Case) -> None:
    with pytest.raises(AmbiguousError):
        case.of(authorization=f"Bearer {case.key_text}", x_api_key="x")


async def test_what_was_revoked_is_nobody(case: Case) -> None:
    by_key, by_session = case.known(x_api_key=case.key_text), case.known(cookie=case.cookie)
    bridge = Identity(Via.BRIDGE, USER, "k2qxv7hd4m3a", case.clock.now + 10)
    _, text = case.mint(USER)
    for identity, member in (
        (by_key, key_member(USER, case.key.id)),
        (by_session, session_member(case.session.id)),
        (bridge, bridge_member("k2qxv7hd4m3a")),
    ):
        assert case.identifier.still_holds(identity)
        await case.revocations.add(member, case.clock.now + 10)
        assert not case.identifier.still_holds(identity), member
    assert case.of(x_api_key=case.key_text) is None
    assert case.of(cookie=case.cookie) is None
    assert case.known(x_api_key=text).user == USER, "another key goes on"


async def test_a_revocation_means_one_user_only(case: Case) -> None:
    await case.revocations.add(key_member(OTHER, case.key.id), case.clock.now + 10)
    await case.revocations.revoke_user(OTHER, before=case.clock.now + 1, lifetime=LIFETIME)
    await case.revocations.add(blocked_member(OTHER), case.clock.now + 10)
    assert case.of(x_api_key=case.key_text) is not None
    assert case.of(cookie=case.cookie) is not None


async def test_a_blocked_user_is_nobody_by_whatever_way(case: Case) -> None:
    by_key, by_session = case.known(x_api_key=case.key_text), case.known(cookie=case.cookie)
    bridge = Identity(Via.BRIDGE, USER, "k2qxv7hd4m3a", case.clock.now + 10)
    await case.revocations.add(blocked_member(USER), case.clock.now + 10)
    assert case.of(x_api_key=case.key_text) is None
    assert case.of(cookie=case.cookie) is None
    assert not any(case.identifier.still_holds(each) for each in (by_key, by_session, bridge))
    await case.revocations.lift(blocked_member(USER))
    assert case.of(x_api_key=case.key_text) == by_key


async def test_all_of_a_users_sessions_end_and_keys_go_on(case: Case) -> None:
    by_session = case.known(cookie=case.cookie)
    await case.revocations.revoke_user(USER, before=case.clock.now + 1, lifetime=LIFETIME)
    assert case.of(cookie=case.cookie) is None
    assert not case.identifier.still_holds(by_session)
    assert case.of(x_api_key=case.key_text) is not None
    case.clock.advance(1)
    later = case.sealer.seal(new_session(USER, now=case.clock.now))
    assert case.of(cookie=f"c2l_session={later}") is not None


async def test_a_session_ends_with_the_providers(case: Case) -> None:
    issued = int(case.clock.now)
    session = Session(USER, "s_x", issued, issued + 100, provider_session="hidden")
    cookie = f"c2l_session={case.sealer.seal(session)}"
    identity = case.known(cookie=cookie)
    await case.revocations.add(provider_session_member("hidden"), case.clock.now + 100)
    assert case.of(cookie=cookie) is None
    assert not case.identifier.still_holds(identity)
    assert case.of(cookie=case.cookie) is not None


def test_sessions_and_keys_end(case: Case) -> None:
    claims, text = case.mint(USER, lifetime=5)
    identity, session = case.known(x_api_key=text), case.known(cookie=case.cookie)
    case.clock.advance(5)
    assert case.of(x_api_key=text) is None
    assert not case.identifier.still_holds(identity)
    case.clock.advance(LIFETIME)
    assert case.of(cookie=case.cookie) is None, "though it was opened before and is remembered"
    assert not case.identifier.still_holds(session)
    assert claims.expires == identity.expires


def test_a_session_sealed_by_another_is_nobody(case: Case) -> None:
    foreign = Sealer((new_sealing_key(),)).seal(new_session(USER, now=case.clock.now))
    assert case.of(cookie=f"c2l_session={foreign}") is None


def test_on_https_only_the_host_prefixed_cookie_counts(case: Case) -> None:
    secure = case.another(secure=True)
    assert secure.identify({b"cookie": case.cookie.encode()}) is None
    assert secure.identify({b"cookie": b"__Host-" + case.cookie.encode()}) is not None


def test_what_is_remembered_of_sessions_is_bounded(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "MAX_OPENED", 3)
    cookies = [f"c2l_session={case.sealer.seal(new_session(USER, now=case.clock.now))}" for _ in range(6)]
    assert all(case.of(cookie=cookie) is not None for cookie in cookies)
    assert all(case.of(cookie=f"c2l_session={n}") is None for n in range(10)), "and nonsense is not remembered"
    assert len(case.identifier._opened) == 3
    assert all(case.of(cookie=cookie) is not None for cookie in cookies)
