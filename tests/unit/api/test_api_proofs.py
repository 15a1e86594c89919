"""A bridge's proof is taken once, also while the state answers badly."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.api_memory import FailingState
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api import authorize
from cloudtolocalllm.api.authorize import Allow, Authorizer, Question
from cloudtolocalllm.api.bridge_verifier import DpopVerifier
from cloudtolocalllm.api.browser import Fields
from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.identity import BridgeRefusedError, Identifier, Identity
from cloudtolocalllm.api.manager_client import ManagerClient
from cloudtolocalllm.api.presence import Presences
from cloudtolocalllm.api.registry import Registry
from cloudtolocalllm.api.revocations import Revocations
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.api.waker import Waker
from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.dpop import Nonces, ProofKey
from cloudtolocalllm.auth.keys import KeyVerifier
from cloudtolocalllm.auth.sessions import Sealer, new_sealing_key
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.contracts.endpoint import Endpoint

ORIGIN = "http://127.0.0.1:8080"
PATH = "/ws/tunnel"
BRIDGE = "k2qxv7hd4m3a"
USER = "u_guq5pi4vzry6glg2sssi"


class Place:
    """An API's part that decides on tunnels, and one bridge."""

    def __init__(self, state: FailingState, clock: FakeClock) -> None:
        self.state, self.clock = state, clock
        self.ring = KeyRing.generate()
        self.nonces = Nonces.of_ring(self.ring)
        self.key = ProofKey.generate()
        bus = LocalBus()
        revocations = Revocations(state, bus, clock)
        self.verifier = DpopVerifier(self.ring, self.nonces, state, revocations, clock, public_url=ORIGIN)
        sealer = Sealer((new_sealing_key(),))
        self.authorizer = Authorizer(
            Identifier(sealer, KeyVerifier(self.ring, clock), revocations, clock, secure=False),
            self.verifier,
            Registry(state, Presences(bus), revocations, bus, clock, replica="one"),
            ManagerClient(Endpoint(host="127.0.0.1", port=1), lambda: ""),
            Waker(bus, state, clock),
            clock,
            scheme="http",
        )

    def fields(self, request: str = "r-1") -> Fields:
        """What one request of the bridge's says of itself."""
        now = self.clock.now
        text, _ = credentials.issue(self.ring, bridge=BRIDGE, user=USER, thumbprint=self.key.thumbprint, now=now)
        nonce = self.nonces.issue(now)
        proof = self.key.prove("GET", ORIGIN + PATH, now=now, nonce=nonce, credential=text)
        fields = {b"authorization": f"DPoP {text}".encode(), b"dpop": proof.encode(), b"host": b"127.0.0.1:8080"}
        return {**fields, b"x-request-id": request.encode()}

    async def verify(self, fields: Fields, **how: Any) -> Identity:
        return await self.verifier.verify(fields, method="GET", path=PATH, **how)

    async def refused(self, fields: Fields, **how: Any) -> bool:
        try:
            await self.verify(fields, **how)
        except BridgeRefusedError as error:
            return "used before" in error.detail
        return False


@pytest.fixture
def place(state: FailingState, clock: FakeClock, tmp_path: Path) -> Place:
    return Place(state, clock)


async def test_a_proof_is_taken_once(place: Place) -> None:
    fields = place.fields()
    assert (await place.verify(fields)).subject == BRIDGE
    assert await place.refused(fields)
    assert await place.refused(fields, attempt="a1")
    assert await place.refused(fields, attempt="")


async def test_one_that_was_taken_though_the_state_did_not_say_so_holds_for_the_same_attempt_only(
    place: Place, state: FailingState
) -> None:
    fields = place.fields()
    state.loses_answers = 1
    with pytest.raises(StateUnavailableError):
        await place.verify(fields, attempt="a1")
    assert await place.refused(fields, attempt="a2"), "somebody who overheard it"
    assert await place.refused(fields)
    assert (await place.verify(fields, attempt="a1")).subject == BRIDGE


async def test_of_a_single_call_nothing_can_be_repeated(place: Place, state: FailingState) -> None:
    fields = place.fields("")
    state.loses_answers = 1
    with pytest.raises(StateUnavailableError):
        await place.verify(fields)
    assert await place.refused(fields)


async def test_the_second_question_about_one_request_may_be_repeated_too(place: Place, state: FailingState) -> None:
    fields = place.fields()
    await place.verify(fields, attempt="a1")
    state.loses_answers = 1
    with pytest.raises(StateUnavailableError):
        await place.verify(fields, again=True, attempt="a2")
    assert await place.refused(fields, again=True, attempt="a3")
    assert (await place.verify(fields, again=True, attempt="a2")).subject == BRIDGE
    assert await place.refused(fields, again=True, attempt="a4"), "once, not for ever"


async def test_another_request_is_no_second_question(place: Place) -> None:
    fields = place.fields("r-1")
    await place.verify(fields, attempt="a1")
    assert await place.refused({**fields, b"x-request-id": b"r-2"}, again=True, attempt="a2")


@pytest.fixture
def answer_lost(state: FailingState, monkeypatch: pytest.MonkeyPatch) -> Question:
    """A question for whose first answer of the state we wait in vain."""
    monkeypatch.setattr(authorize, "PAUSES", (1e-9, 1e-9))
    state.loses_answers = 1
    return Question("GET", PATH, fresh=False, request_id="r-1", presented=False)


async def test_a_bridge_is_let_in_although_the_answer_of_the_state_was_lost(
    place: Place, answer_lost: Question
) -> None:
    fields = place.fields()
    _, decision = await place.authorizer._patiently(answer_lost, fields)
    assert isinstance(decision, Allow)
    assert decision.identity.subject == BRIDGE
    with pytest.raises(BridgeRefusedError):
        await place.authorizer._patiently(answer_lost, fields)


async def test_of_a_proof_that_two_present_in_an_outage_one_is_let_in(place: Place, answer_lost: Question) -> None:
    fields = place.fields()
    asked = (place.authorizer._patiently(answer_lost, fields) for _ in range(4))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(outcome, BridgeRefusedError) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
