import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.auth.scopes import KeyScope
from cloudtolocalllm.bridge import keys as room
from cloudtolocalllm.bridge.caller import Caller, check_tokens, identify
from cloudtolocalllm.bridge.keys import DAY, KeyList
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers

KEY_ID = "3fomfi6a5lvd"
CLOCK = FakeClock()


def encoded(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def scope(**members: object) -> bytes:
    return encoded({"iat": int(CLOCK.now) - 5, "exp": int(CLOCK.now) + 1000, **members})


def by_key(said: bytes | None = None, key: bytes = KEY_ID.encode()) -> Headers:
    return ((b"c2l-via", b"key"), (b"c2l-key", key), (b"c2l-scope", scope() if said is None else said))


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyList]:
    keys = KeyList(tmp_path / "c.keys.db", CLOCK)
    yield keys
    keys.close()


def refusal(headers: Headers, keys: KeyList, now: float = CLOCK.now) -> Problem:
    with pytest.raises(RefusalError) as caught:
        identify(headers, keys, now)
    return caught.value.problem


def test_a_session_sees_every_exchange(keys: KeyList) -> None:
    caller = identify(((b"c2l-via", b"session"), (b"accept", b"*/*")), keys, CLOCK.now)
    assert caller == Caller(session=True)
    assert caller.may_see("")
    assert caller.may_see(KEY_ID)


def test_a_key_sees_its_own_exchanges(keys: KeyList) -> None:
    caller = identify(by_key(scope(mdl=["llama*"], tpd=5)), keys, CLOCK.now)
    assert caller == Caller(key=KEY_ID, scope=KeyScope(models=("llama*",), tokens_per_day=5))
    assert caller.may_see(KEY_ID)
    assert not caller.may_see("")
    assert not caller.may_see("aaaaaaaaaaaa")


def test_a_key_that_is_met_is_listed(keys: KeyList) -> None:
    identify(by_key(scope(mdl=["llama*"])), keys, CLOCK.now)
    (key,) = keys
    assert (key.id, key.name, key.last_used) == (KEY_ID, "", CLOCK.now)
    assert (key.created, key.expires) == (int(CLOCK.now) - 5, int(CLOCK.now) + 1000)


def test_a_revoked_key_is_refused_whatever_the_cloud_says(keys: KeyList) -> None:
    identify(by_key(), keys, CLOCK.now)
    keys.revoke(KEY_ID)
    assert refusal(by_key(), keys) is Problem.UNAUTHENTICATED
    assert refusal(by_key(scope(exp=2**40)), keys) is Problem.UNAUTHENTICATED


def test_a_key_that_another_process_revoked_is_refused(keys: KeyList, tmp_path: Path) -> None:
    identify(by_key(), keys, CLOCK.now)
    other = KeyList(tmp_path / "c.keys.db", CLOCK)
    other.revoke(KEY_ID)
    other.close()
    assert refusal(by_key(), keys) is Problem.UNAUTHENTICATED


def test_an_expired_key_is_refused_whichever_side_says_so(keys: KeyList) -> None:
    identify(by_key(), keys, CLOCK.now + 999)
    assert refusal(by_key(), keys, CLOCK.now + 1000) is Problem.UNAUTHENTICATED
    assert refusal(by_key(scope(exp=2**40)), keys, CLOCK.now + 1000) is Problem.UNAUTHENTICATED
    assert refusal(by_key(scope(exp=int(CLOCK.now))), keys) is Problem.UNAUTHENTICATED


def test_a_scope_that_grows_later_does_not(keys: KeyList) -> None:
    identify(by_key(scope(mdl=["tiny"])), keys, CLOCK.now)
    caller = identify(by_key(scope()), keys, CLOCK.now)
    assert caller.scope == KeyScope(models=("tiny",))


@pytest.mark.parametrize(
    "headers",
    [
        ((b"c2l-via", b"session"), (b"c2l-via", b"session")),
        ((b"c2l-via", b"session"), (b"c2l-via", b"key")),
        ((b"c2l-via", b"admin"),),
        ((b"c2l-via", b""),),
        ((b"c2l-via", b"Session"),),
        ((b"c2l-via", b"session"), (b"c2l-key", b"3fomfi6a5lvd")),
        ((b"c2l-via", b"session"), (b"c2l-scope", b"e30")),
        ((b"c2l-key", b"3fomfi6a5lvd"), (b"c2l-scope", b"e30")),
        ((b"c2l-scope", b"e30"),),
        ((b"c2l-via", b"key"),),
        ((b"c2l-via", b"key"), (b"c2l-key", b"3fomfi6a5lvd")),
        ((b"c2l-via", b"key"), (b"c2l-scope", b"e30")),
        (*by_key(), (b"c2l-key", b"aaaaaaaaaaaa")),
        (*by_key(), (b"c2l-scope", b"e30")),
        by_key(key=b"a b"),
        by_key(key=b""),
        by_key(key=b"a" * 65),
        by_key(key=b"\xe9"),
        by_key(b""),
        by_key(b"!!!!"),
        by_key(b"e30"),
        by_key(b"A"),
        by_key(encoded(b"\xff\xfe")),
        by_key(encoded([])),
        by_key(encoded(None)),
        by_key(encoded({"iat": 1})),
        by_key(encoded({"iat": 1, "exp": "never"})),
        by_key(encoded({"iat": True, "exp": 2**40})),
        by_key(scope(mdl="all")),
        by_key(scope(tpd=0)),
        by_key(encoded(b"[" * 3000)),
        by_key(b"A" * 5000),
        by_key(scope().replace(b"-", b"+") + b"=="),
    ],
)
def test_fields_in_another_form_are_refused_and_list_nothing(headers: Headers, keys: KeyList) -> None:
    assert refusal(headers, keys) is Problem.BAD_REQUEST
    assert len(keys) == 0


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from([b"c2l-via", b"c2l-key", b"c2l-scope"]), st.binary(max_size=40)), max_size=4)
)
def test_garbage_is_refused_or_is_a_session(
    tmp_path_factory: pytest.TempPathFactory, headers: list[tuple[bytes, bytes]]
) -> None:
    keys = KeyList(tmp_path_factory.getbasetemp() / "garbage.keys.db", CLOCK)
    try:
        caller = identify(tuple(headers), keys, CLOCK.now)
    except RefusalError:
        return
    finally:
        keys.close()
    assert caller == Caller(session=bool(headers))


def test_a_full_list_takes_no_new_key(keys: KeyList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_KEYS", 1)
    identify(by_key(), keys, CLOCK.now)
    assert refusal(by_key(key=b"aaaaaaaaaaaa"), keys) is Problem.OVERLOADED
    identify(by_key(), keys, CLOCK.now)


def test_every_model_that_is_named_must_be_within_the_scope() -> None:
    caller = Caller(key=KEY_ID, scope=KeyScope(models=("tiny", "qwen*")))
    caller.check_models(["tiny"])
    caller.check_models(["tiny:latest", "Qwen3:8b"])
    for models in (["big"], ["tiny", "big"], ["big", "tiny"], [], [""]):
        with pytest.raises(RefusalError) as caught:
            caller.check_models(models)
        assert caught.value.problem is Problem.KEY_SCOPE
    Caller(key=KEY_ID).check_models([])


def test_a_key_without_tokens_left_waits_for_midnight(keys: KeyList) -> None:
    now = CLOCK.now // DAY * DAY + DAY - 90
    caller = Caller(key=KEY_ID, scope=KeyScope(tokens_per_day=100))
    key = keys.add(KEY_ID, "", caller.scope, created=1, expires=2**40)
    key.day, key.tokens = int(now // DAY), 99
    check_tokens(caller, keys, now)
    key.tokens = 100
    with pytest.raises(RefusalError) as caught:
        check_tokens(caller, keys, now)
    assert (caught.value.problem, caught.value.retry_after) == (Problem.RATE_LIMITED, 90)
    check_tokens(caller, keys, now + 90)
    check_tokens(Caller(key=KEY_ID), keys, now)
