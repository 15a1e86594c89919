import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import (
    ControlMessageError,
    EngineKind,
    EngineState,
    EngineStatus,
    Hello,
    Message,
    Presence,
    Revoked,
    Wake,
    Welcome,
)
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.instances import Instance, InstanceState
from cloudtolocalllm.contracts.problems import Problem, problem_content

engines = st.lists(
    st.builds(
        EngineStatus, id=st.text(max_size=64), kind=st.sampled_from(EngineKind), state=st.sampled_from(EngineState)
    ),
    max_size=8,
).map(tuple)
messages = st.one_of(
    st.builds(Hello, version=st.text(max_size=64), name=st.text(max_size=128), engines=engines),
    st.builds(Presence, engines=engines),
    st.builds(Welcome, bridge_id=st.text(max_size=64), nonce=st.text(max_size=256)),
    st.builds(Wake, instance=st.text(max_size=64), nonce=st.text(max_size=256)),
    st.just(Revoked()),
)


@given(messages)
def test_a_control_message_survives_the_wire(message: Message) -> None:
    assert control.decode(control.encode(message)) == message


garbage = st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps)


@given(st.one_of(st.text(max_size=200), garbage))
def test_garbage_gives_the_documented_error_only(text: str) -> None:
    with pytest.raises(ControlMessageError):
        control.decode(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * (control.MAX_MESSAGE + 1), "at most"),
        ("{", "a JSON text"),
        ("[" * 10_000, "a JSON text"),
        ('{"type":"hello","version":1,"name":"n","engines":[]}', "version to be a text"),
        ('{"type":"presence","engines":[{"id":"a","kind":"x","state":"up"}]}', "known engine kind"),
        ('{"type":"presence","engines":[1]}', "each engine to be an object"),
        ('{"type":"presence","engines":%s}' % ([{}] * 33), "at most 32"),
        ('{"type":"shutdown"}', "expected a known type"),
    ],
)
def test_a_malformed_control_message_says_what_was_expected(text: str, reason: str) -> None:
    with pytest.raises(ControlMessageError, match=reason):
        control.decode(text.replace("'", '"'))


@pytest.mark.parametrize("text", ["unix:/run/a.sock", "127.0.0.1:80", "[::1]:8080", "proxy:65535"])
def test_an_endpoint_reads_and_writes(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize("text", ["", "unix:x", "host", "host:", ":80", "host:0", "host:65536", "host:-1", "host:٣"])
def test_a_malformed_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Endpoint.parse(text)


def test_an_instance_survives_json() -> None:
    instance = Instance("px-1", None, Endpoint.parse("unix:/a"), "00" * 32, InstanceState.READY, 1.5)
    assert Instance.from_json(json.loads(json.dumps(instance.to_json()))) == instance


@pytest.mark.parametrize("problem", Problem)
def test_a_problem_document_has_what_clients_read(problem: Problem) -> None:
    document = json.loads(problem_content(problem, "Do this.", retry=1))
    assert document["type"] == problem.value.uri
    assert document["status"] == problem.value.status
    assert "Do this." in document["error"]["message"]
    assert document["retry"] == 1
    assert Problem.by_slug(problem.value.slug) is problem


def test_types_that_others_know_have_their_registered_names() -> None:
    assert Problem.OVERLOADED.value.uri == "urn:c2l:problem:overloaded"
    assert Problem.OHTTP_KEY.value.uri == "https://iana.org/assignments/http-problem-types#ohttp-key"
    assert Problem.DATE.value.uri == "https://iana.org/assignments/http-problem-types#date"
