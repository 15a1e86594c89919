"""What a limited API key may do on the data path: decided by the API, before a proxy is woken."""

from dataclasses import replace

import pytest

from cloudtolocalllm.api.authorize import Allow, BridgeFact, Deny, Facts, Question, decide, home_scope
from cloudtolocalllm.api.identity import Identity, Via
from cloudtolocalllm.auth.assertion import CLIENT, KEY, MAX_LENGTH, Assertion, Limits, mint
from cloudtolocalllm.auth.keys import KeyClaims, KeyScope
from cloudtolocalllm.contracts.problems import Problem

ASK = Question("POST", "/v1/chat/completions", fresh=False, request_id="r", presented=True)
ONE = BridgeFact("b1", "Desktop", connected=100.0, last_seen=90.0)
TWO = BridgeFact("b2", "Laptop", connected=200.0, last_seen=90.0)
AWAY = BridgeFact("b3", "Attic", connected=None, last_seen=50.0)
ALL = (ONE, TWO, AWAY)


def key(scope: KeyScope) -> Identity:
    claims = KeyClaims("3fomfi6a5lvd", "u_a", 1, 2**40, scope)
    return Identity(Via.KEY, "u_a", claims.id, claims.expires, claims.issued, key=claims)


def problem(path: str, scope: KeyScope, bridges: tuple[BridgeFact, ...] = ALL) -> Problem | None:
    decision = decide(replace(ASK, path=path), Facts(key(scope), bridges=bridges))
    return decision.problem if isinstance(decision, Deny) else None


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/chat/completions", True),
        ("/v1/models", True),
        ("/ollama/api/chat", False),
        ("/ollama/v1/chat/completions", False),
        ("/anthropic/v1/messages", False),
        ("/c2l/conversations", False),
        ("/e2e/b1", False),
        ("/c2l/exchanges/exchange-0123456789", True),
        ("/v1/../ollama/api/chat", False),
        ("/v1/%2e%2e/ollama/api/chat", False),
    ],
)
def test_a_key_reaches_its_routes_only(path: str, allowed: bool) -> None:
    assert problem(path, KeyScope(routes=("/v1/",))) is (None if allowed else Problem.KEY_SCOPE)
    assert problem(path, KeyScope()) is None


def test_the_routes_are_judged_before_anything_is_told_of_the_account() -> None:
    assert problem("/ollama/api/chat", KeyScope(routes=("/v1/",)), ()) is Problem.KEY_SCOPE


def test_a_key_for_one_bridge_reaches_no_other() -> None:
    identity = key(KeyScope(bridge="b1"))
    assert decide(ASK, Facts(identity, bridges=ALL)) == Allow(CLIENT, identity, (ONE,))
    everywhere = decide(ASK, Facts(key(KeyScope()), bridges=ALL))
    assert isinstance(everywhere, Allow)
    assert everywhere.bridges == (TWO, ONE)


def test_a_key_for_a_bridge_that_is_away_waits_for_it() -> None:
    assert problem("/v1/models", KeyScope(bridge="b3")) is Problem.BRIDGE_OFFLINE


def test_a_key_for_a_bridge_that_is_gone_or_anothers_is_refused() -> None:
    assert problem("/v1/models", KeyScope(bridge="b9")) is Problem.KEY_SCOPE
    assert problem("/v1/models", KeyScope(bridge="b9"), ()) is Problem.NO_BRIDGE_PAIRED


def test_a_session_has_no_scope() -> None:
    session = Identity(Via.SESSION, "u_a", "s")
    assert isinstance(decide(replace(ASK, path="/c2l/conversations"), Facts(session, bridges=ALL)), Allow)


def test_the_largest_scope_fits_into_an_assertion_with_everything_else() -> None:
    scope = KeyScope(("/anthropic/" + "r" * 21,) * 16, ("m" * 64,) * 16, 10**12, 10**12, "b" * 12)
    claims = KeyClaims("3fomfi6a5lvd", "u_" + "a" * 20, 2**31, 2**32, scope)
    said = Assertion(
        "px-0123456789abcdef",
        claims.user,
        CLIENT,
        claims.id,
        2**31,
        2**31,
        ("k2qxv7hd4m3a",) * 16,
        "r" * 64,
        via=KEY,
        key_requests_per_minute=10**12,
        scope=home_scope(claims),
        limits=Limits(10**14, 10**14, 10**14),
    )
    assert len(mint(said, bytes(32))) <= MAX_LENGTH
