"""Sealed requests, `/e2e/{bridge id}`: they go to exactly the bridge that they name, if it is the asking user's."""

from dataclasses import replace

import pytest

from cloudtolocalllm.api.authorize import MAX_BRIDGES, Allow, BridgeFact, Deny, Facts, Question, decide
from cloudtolocalllm.api.identity import Identity, Via
from cloudtolocalllm.auth.assertion import CLIENT
from cloudtolocalllm.auth.keys import KeyClaims, KeyScope
from cloudtolocalllm.contracts.problems import Problem

OLD = BridgeFact("b1", "Desktop", connected=100.0, last_seen=90.0)
NEW = BridgeFact("b2", "Laptop", connected=200.0, last_seen=90.0)
AWAY = BridgeFact("b3", "Attic", connected=None, last_seen=50.0)
ALL = (OLD, NEW, AWAY)
KEY = Identity(Via.KEY, "u_a", "k")
SESSION = Identity(Via.SESSION, "u_a", "s")


def ask(path: str, method: str = "POST") -> Question:
    return Question(method, path, fresh=False, request_id="r", presented=True)


def key(**scope: object) -> Identity:
    return replace(KEY, key=KeyClaims("k", "u_a", 1, 2, KeyScope(**scope)))  # type: ignore[arg-type] # real members


def problem(path: str, identity: Identity | None = KEY, bridges: tuple[BridgeFact, ...] = ALL) -> Problem | None:
    decision = decide(ask(path), Facts(identity, bridges=bridges))
    return decision.problem if isinstance(decision, Deny) else None


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("identity", [KEY, SESSION])
@pytest.mark.parametrize("bridge", [OLD, NEW])
def test_it_goes_to_the_named_bridge_and_no_other(method: str, identity: Identity, bridge: BridgeFact) -> None:
    decision = decide(ask(f"/e2e/{bridge.id}", method), Facts(identity, bridges=ALL))
    assert decision == Allow(CLIENT, identity, (bridge,))


def test_the_named_one_is_found_among_more_than_an_assertion_names() -> None:
    many = tuple(BridgeFact(f"b{n}", "x", connected=float(n), last_seen=None) for n in range(100))
    assert MAX_BRIDGES < 100
    assert decide(ask("/e2e/b0"), Facts(KEY, bridges=many)) == Allow(CLIENT, KEY, (many[0],))


@pytest.mark.parametrize(
    "path",
    [
        "/e2e/",
        "/e2e/strangers",
        "/e2e/b1/",
        "/e2e/b1/x",
        "/e2e/b1x",
        "/e2e/B1",
        "/e2e/b1,b2",
        "/e2e/%62%31",
        "/e2e/*",
    ],
)
@pytest.mark.parametrize("identity", [KEY, SESSION])
def test_what_is_not_an_own_bridges_id_is_not_there(path: str, identity: Identity) -> None:
    assert problem(path, identity) is Problem.NOT_FOUND


def test_who_has_no_bridge_learns_nothing_of_others() -> None:
    mine = decide(ask("/e2e/strangers"), Facts(KEY, bridges=()))
    assert mine == decide(ask("/e2e/nobodys"), Facts(KEY, bridges=ALL))
    assert isinstance(mine, Deny)
    assert mine.problem is Problem.NOT_FOUND


def test_nobody_may_ask() -> None:
    assert problem("/e2e/b1", None) is Problem.UNAUTHENTICATED


def test_a_bridges_credential_may_not_ask() -> None:
    assert problem("/e2e/b1", Identity(Via.BRIDGE, "u_a", "b1")) is Problem.FORBIDDEN


def test_a_session_of_another_page_may_not_ask() -> None:
    decision = decide(ask("/e2e/b1"), Facts(SESSION, session_fault="Another page.", bridges=ALL))
    assert decision == Deny(Problem.FORBIDDEN, "Another page.")


def test_a_bridge_that_is_away_is_said_to_be_though_others_are_there() -> None:
    decision = decide(ask("/e2e/b3"), Facts(KEY, bridges=ALL))
    assert decision == Deny(Problem.BRIDGE_OFFLINE, '"Attic" is offline since 1970-01-01 00:00:50 UTC.')


def test_one_that_connects_anew_is_waited_for_and_another_one_is_not() -> None:
    returning = replace(AWAY, id="b4", returning=True)
    for path, passing in (("/e2e/b4", True), ("/e2e/b3", False)):
        decision = decide(ask(path), Facts(KEY, bridges=(*ALL, returning)))
        assert isinstance(decision, Deny)
        assert (decision.problem, decision.passing) == (Problem.BRIDGE_OFFLINE, passing)


def test_a_key_for_one_bridge_reaches_that_one_only() -> None:
    assert problem("/e2e/b1", key(bridge="b1")) is None
    assert problem("/e2e/b2", key(bridge="b1")) is Problem.KEY_SCOPE
    assert problem("/e2e/b3", key(bridge="b3")) is Problem.BRIDGE_OFFLINE


def test_a_key_for_a_strangers_bridge_reaches_nothing() -> None:
    assert problem("/e2e/strangers", key(bridge="strangers")) is Problem.NOT_FOUND
    assert problem("/e2e/b1", key(bridge="strangers")) is Problem.KEY_SCOPE


@pytest.mark.parametrize(
    ("routes", "allowed"),
    [
        ((), True),
        (("/e2e/",), True),
        (("/v1/", "/e2e/b1"), True),
        (("/e2e/b2",), False),
        (("/v1/",), False),
        (("/v1/", "/ollama/", "/anthropic/"), False),
    ],
)
def test_a_key_that_is_limited_to_routes_needs_this_one(routes: tuple[str, ...], allowed: bool) -> None:
    assert problem("/e2e/b1", key(routes=routes)) is (None if allowed else Problem.KEY_SCOPE)


def test_a_key_for_sealed_requests_reaches_no_plain_route() -> None:
    assert problem("/v1/models", key(routes=("/e2e/",))) is Problem.KEY_SCOPE
