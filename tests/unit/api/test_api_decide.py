from dataclasses import replace

import pytest

from cloudtolocalllm.api.authorize import MAX_BRIDGES, Allow, BridgeFact, Deny, Facts, Question, decide, read
from cloudtolocalllm.api.browser import AmbiguousError
from cloudtolocalllm.api.identity import Identity, Via
from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT
from cloudtolocalllm.auth.keys import KeyClaims, KeyScope
from cloudtolocalllm.contracts.authorize import DATA_PREFIXES
from cloudtolocalllm.contracts.problems import Problem

ASK = Question("POST", "/v1/chat/completions", fresh=False, request_id="r", presented=True)
DIAL = replace(ASK, method="GET", path="/ws/tunnel")
KEY = Identity(Via.KEY, "u_a", "k")
SESSION = Identity(Via.SESSION, "u_a", "s")
CREDENTIAL = Identity(Via.BRIDGE, "u_a", "b")
UP = BridgeFact("b1", "Desktop", connected=100.0, last_seen=90.0)
DOWN = BridgeFact("b2", "Laptop", connected=None, last_seen=50.0)


def key(scope: KeyScope) -> Identity:
    return replace(KEY, key=KeyClaims("k", "u_a", 1, 2, scope))


def denied(question: Question, facts: Facts) -> Deny:
    decision = decide(question, facts)
    assert isinstance(decision, Deny)
    return decision


@pytest.mark.parametrize("prefix", DATA_PREFIXES)
def test_a_key_may_ask_on_every_data_route(prefix: str) -> None:
    question = replace(ASK, path=prefix + UP.id)
    assert decide(question, Facts(KEY, bridges=(UP,))) == Allow(CLIENT, KEY, (UP,))


def test_a_session_of_our_own_page_may_ask() -> None:
    assert decide(ASK, Facts(SESSION, bridges=(UP,))) == Allow(CLIENT, SESSION, (UP,))


def test_a_session_of_another_page_may_not() -> None:
    deny = denied(ASK, Facts(SESSION, session_fault="Another page.", bridges=(UP,)))
    assert (deny.problem, deny.detail) == (Problem.FORBIDDEN, "Another page.")


def test_nobody_may_not() -> None:
    assert denied(ASK, Facts(None, bridges=(UP,))).problem is Problem.UNAUTHENTICATED
    assert denied(DIAL, Facts(None)).problem is Problem.UNAUTHENTICATED


def test_what_to_do_is_said_to_who_sent_nothing_and_who_sent_a_wrong_key() -> None:
    assert "not valid" in denied(ASK, Facts(None)).detail
    assert "Send Authorization" in denied(replace(ASK, presented=False), Facts(None)).detail


def test_preflights_are_refused_whoever_asks() -> None:
    deny = denied(replace(ASK, method="OPTIONS"), Facts(KEY, bridges=(UP,)))
    assert deny.problem is Problem.FORBIDDEN


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/api/auth/keys", "/internal/authorize", "/ws/tunnel/x", "/xv1/", "*"]
)
def test_other_routes_are_refused(path: str) -> None:
    assert denied(replace(ASK, path=path), Facts(KEY, bridges=(UP,))).problem is Problem.NOT_FOUND


def test_a_bridge_may_dial_and_nothing_else() -> None:
    assert decide(DIAL, Facts(CREDENTIAL)) == Allow(BRIDGE, CREDENTIAL)
    assert denied(ASK, Facts(CREDENTIAL, bridges=(UP,))).problem is Problem.FORBIDDEN


@pytest.mark.parametrize("identity", [KEY, SESSION])
def test_only_a_bridge_may_dial(identity: Identity) -> None:
    assert denied(DIAL, Facts(identity, bridges=(UP,))).problem is Problem.FORBIDDEN


def test_a_tunnel_is_opened_by_get() -> None:
    assert denied(replace(DIAL, method="POST"), Facts(CREDENTIAL)).problem is Problem.METHOD_NOT_ALLOWED


def test_no_bridge_is_told_from_none_connected() -> None:
    assert denied(ASK, Facts(KEY)).problem is Problem.NO_BRIDGE_PAIRED
    deny = denied(ASK, Facts(KEY, bridges=(DOWN,)))
    assert deny.problem is Problem.BRIDGE_OFFLINE
    assert deny.detail == '"Laptop" is offline since 1970-01-01 00:00:50 UTC.'
    assert not deny.passing
    assert denied(ASK, Facts(KEY, bridges=(DOWN, replace(DOWN, id="other", returning=True)))).passing


def test_the_bridge_that_was_last_there_is_named_in_ascii() -> None:
    never = BridgeFact("b3", 'Früh\u2028"x', None, None)
    assert '"Laptop"' in denied(ASK, Facts(KEY, bridges=(never, DOWN))).detail
    detail = denied(ASK, Facts(KEY, bridges=(never,))).detail
    assert detail == '"Fr?h?\'x" has not connected yet.'


def test_only_connected_bridges_serve_the_latest_first() -> None:
    newer = BridgeFact("b4", "New", connected=200.0, last_seen=None)
    decision = decide(ASK, Facts(KEY, bridges=(UP, DOWN, newer)))
    assert isinstance(decision, Allow)
    assert [bridge.id for bridge in decision.bridges] == ["b4", "b1"]


@pytest.mark.parametrize(
    ("routes", "path", "allowed"),
    [
        ((), "/v1/chat/completions", True),
        (("/v1/",), "/v1/chat/completions", True),
        (("/v1/",), "/ollama/api/chat", False),
        (("/v1/models",), "/v1/models", True),
        (("/v1/models",), "/v1/models/x", False),
        (("/v1/models", "/ollama/"), "/ollama/api/chat", True),
        (("/v1/",), "/v1/../ollama/api/chat", False),
        (("/v1/",), "/v1/%2e%2e/ollama/api/chat", False),
        (("/v1/",), "/c2l/conversations", False),
    ],
)
def test_a_key_reaches_the_routes_of_its_scope(routes: tuple[str, ...], path: str, allowed: bool) -> None:
    identity = key(KeyScope(routes=routes))
    decision = decide(replace(ASK, path=path), Facts(identity, bridges=(UP,)))
    if allowed:
        assert decision == Allow(CLIENT, identity, (UP,))
    else:
        assert isinstance(decision, Deny)
        assert decision.problem is Problem.KEY_SCOPE


def test_what_a_key_may_not_is_said_before_what_is_there() -> None:
    narrow = key(KeyScope(routes=("/ollama/",)))
    for bridges in ((), (DOWN,), (UP,)):
        assert denied(ASK, Facts(narrow, bridges=bridges)).problem is Problem.KEY_SCOPE


def test_a_key_of_one_bridge_reaches_no_other() -> None:
    two = BridgeFact("b2", "Laptop", connected=50.0, last_seen=50.0)
    assert decide(ASK, Facts(key(KeyScope(bridge="b2")), bridges=(UP, two))) == Allow(
        CLIENT, key(KeyScope(bridge="b2")), (two,)
    )
    deny = denied(ASK, Facts(key(KeyScope(bridge="b2")), bridges=(UP, DOWN)))
    assert deny.problem is Problem.BRIDGE_OFFLINE
    assert "Laptop" in deny.detail
    assert denied(ASK, Facts(key(KeyScope(bridge="b9")), bridges=(UP, DOWN))).problem is Problem.KEY_SCOPE
    assert denied(ASK, Facts(key(KeyScope(bridge="b9")))).problem is Problem.NO_BRIDGE_PAIRED


def test_a_session_has_no_scope() -> None:
    assert decide(replace(ASK, path="/c2l/conversations"), Facts(SESSION, bridges=(UP,))) == Allow(
        CLIENT, SESSION, (UP,)
    )


def test_an_assertion_names_a_bounded_number_of_bridges() -> None:
    many = tuple(BridgeFact(f"b{n}", "x", connected=float(n), last_seen=None) for n in range(100))
    decision = decide(ASK, Facts(KEY, bridges=many))
    assert isinstance(decision, Allow)
    assert [bridge.id for bridge in decision.bridges] == [f"b{n}" for n in range(99, 99 - MAX_BRIDGES, -1)]


def test_the_query_decides_nothing() -> None:
    fields = {b"x-original-method": b"GET", b"x-original-uri": b"/api/x?/v1/&key=c2l_a"}
    question = read(fields)
    assert (question.path, question.presented) == ("/api/x", False)


def test_the_question_is_read() -> None:
    fields = {
        b"x-original-method": b"POST",
        b"x-original-uri": b"/v1/models?x=1",
        b"c2l-fresh": b"1",
        b"x-request-id": b"abc-1",
        b"x-api-key": b"k",
    }
    assert read(fields) == Question("POST", "/v1/models", fresh=True, request_id="abc-1", presented=True)


@pytest.mark.parametrize("request_id", [b"", b"a b", b"x" * 65, b"a\nb", b"\xff", b'"'])
def test_a_strange_request_id_is_dropped(request_id: bytes) -> None:
    assert read({b"x-request-id": request_id}).request_id == ""


def test_a_bridges_credential_is_no_key() -> None:
    assert not read({b"authorization": b"DPoP a", b"dpop": b"b"}).presented


def test_different_keys_are_ambiguous_and_equal_ones_are_not() -> None:
    with pytest.raises(AmbiguousError):
        read({b"authorization": b"Bearer a", b"x-api-key": b"b"})
    assert read({b"authorization": b"bearer a", b"x-api-key": b"a"}).presented
