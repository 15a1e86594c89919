"""A cloud that gives other keys, or poses as a device: nothing is sealed to it, and no home lets it in."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.support import hostile_cloud as cloud
from tests.support.gateway_parts import gateway_of
from tests.support.hostile_cloud import take_apart, taken
from tests.support.hostile_setting import PATH, QUESTION, REQUEST_HEAD, TRUTH, Place, running_place
from tests.support.sealed_client import ClearProblemError, SealedAnswer, SealedClient

from cloudtolocalllm.sealed.bhttp import Message, RequestHead
from cloudtolocalllm.sealed.device import DEVICE_FIELD, PROOF_FIELD, proof_fields, public_point
from cloudtolocalllm.sealed.errors import (
    ExpiredError,
    MalformedError,
    RollbackError,
    SealedError,
    UntrustedError,
)
from cloudtolocalllm.sealed.exchange import seal_request
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.fingerprint import fingerprint
from cloudtolocalllm.sealed.key_ring import LIFE, KeyRing
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE, RequestSealer
from cloudtolocalllm.sealed.pairing import shared_secret
from cloudtolocalllm.sealed.safety_words import safety_words
from cloudtolocalllm.sealed.statement import claimed_fingerprint, sign, state_keys

THIEF = ec.generate_private_key(ec.SECP256R1())
CLOUDS_OWN = Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running_place(tmp_path_factory.mktemp("homes")) as made:
        yield made


def statement_by_the_cloud(now: float, bridge: str = "br-test") -> str:
    ring = KeyRing.new(secrets.token_bytes(32), now)
    return sign(state_keys(ring, bridge, now), CLOUDS_OWN)


def statement_of(place: Place, client: SealedClient) -> str:
    return place.run(taken_text(client))


async def taken_text(client: SealedClient) -> str:
    return (await taken(await client.outer.send("GET", client.target, "", b""))).content.decode()


# --- keys ---


def parts_of(text: str) -> tuple[str, str, str]:
    header, claims, signature = text.split(".")
    return header, claims, signature


def others(place: Place, true: str) -> str:
    return statement_of(place, place.other)


def clouds(place: Place, true: str) -> str:
    return statement_by_the_cloud(place.home.now())


def clouds_claims(place: Place, true: str) -> str:
    header, _, signature = parts_of(true)
    return ".".join((header, parts_of(clouds(place, true))[1], signature))


def clouds_header(place: Place, true: str) -> str:
    return ".".join((parts_of(clouds(place, true))[0], *parts_of(true)[1:]))


def clouds_signature(place: Place, true: str) -> str:
    return ".".join((*parts_of(true)[:2], parts_of(clouds(place, true))[2]))


WRONG: list[tuple[Callable[[Place, str], str], type[SealedError]]] = [
    (others, UntrustedError),
    (clouds, UntrustedError),
    (clouds_claims, UntrustedError),
    (clouds_header, UntrustedError),
    (clouds_signature, UntrustedError),
    (lambda place, true: "", MalformedError),
    (lambda place, true: true[:-1], MalformedError),
    (lambda place, true: true + "A", MalformedError),
    (lambda place, true: "<html>sign in to this network</html>", MalformedError),
]


@pytest.mark.parametrize(("change", "error"), WRONG)
def test_a_statement_that_is_not_the_homes(
    place: Place, change: Callable[[Place, str], str], error: type[SealedError]
) -> None:
    given = change(place, statement_of(place, place.home))
    it = place.setting(cloud.OnStatements(lambda _: given))
    place.run(it.noticed(error))
    assert [asked.method for asked in it.cloud.seen] == ["GET"], "expected nothing to be sealed to it"
    assert it.engine == []


def test_an_older_statement_than_one_that_was_accepted(place: Place) -> None:
    """True, and still good by its time: the home has another key since."""
    it = place.setting()
    older = statement_of(place, place.home)
    keeper = gateway_of(place.homes[0]).keys
    keeper._ring = keeper._ring.rotated(secrets.token_bytes(32), it.client.now())
    place.run(it.client.refresh())
    it.client.statement = None
    it.cloud.misdeed = cloud.OnStatements(lambda _: older)
    place.run(it.noticed(RollbackError))
    assert it.engine == []


def test_a_statement_whose_time_is_over(place: Place) -> None:
    it = place.setting()
    now = it.client.now
    it.client.now = lambda: now() + LIFE + 121
    place.run(it.noticed(ExpiredError))
    assert it.engine == []


def test_homes_that_are_swapped(place: Place) -> None:
    it = place.setting()
    it.cloud.home, it.cloud.other = it.cloud.other, it.cloud.home
    place.run(it.noticed(UntrustedError))
    assert it.engine == []


def test_without_a_link_the_words_tell_a_cloud_in_the_middle(place: Place) -> None:
    """Nothing is pinned yet, so only people can tell: the two sides show different words."""
    device = fingerprint(public_point(THIEF))
    true = claimed_fingerprint(statement_of(place, place.home))
    assert true == place.home.pinned
    in_the_middle = claimed_fingerprint(statement_by_the_cloud(place.home.now()))
    assert safety_words(in_the_middle, device) != safety_words(true, device)


# --- the cloud as a device ---


def own(client: SealedClient, sealer: RequestSealer) -> Fields:
    return proof_fields(sealer, THIEF, client.now())


def in_the_name_of_another(client: SealedClient, sealer: RequestSealer) -> Fields:
    named = client.device.encode()
    return tuple((name, named if name == DEVICE_FIELD else value) for name, value in own(client, sealer))


def with_a_proof_for_another_request(client: SealedClient, sealer: RequestSealer) -> Fields:
    assert client.statement is not None
    other = RequestSealer(client.statement.configs[0], secrets.token_bytes(32))
    return proof_fields(other, client.key, client.now())


def without_a_proof(client: SealedClient, sealer: RequestSealer) -> Fields:
    return tuple(field for field in in_the_name_of_another(client, sealer) if field[0] != PROOF_FIELD)


def with_nothing(client: SealedClient, sealer: RequestSealer) -> Fields:
    return ()


def with_two_devices(client: SealedClient, sealer: RequestSealer) -> Fields:
    return (*own(client, sealer), (DEVICE_FIELD, client.device.encode()))


@pytest.mark.parametrize(
    ("fields", "slugs"),
    [
        (own, {"device-unknown"}),
        (in_the_name_of_another, {"unauthenticated"}),
        (with_a_proof_for_another_request, {"unauthenticated"}),
        (without_a_proof, {"unauthenticated"}),
        (with_nothing, {"device-unknown", "unauthenticated", "date"}),
        (with_two_devices, {"bad-request"}),
    ],
)
@pytest.mark.parametrize("path", [PATH, "/c2l/devices", "/c2l/conversations"])
def test_a_cloud_that_poses_as_a_device(
    place: Place, fields: Callable[[SealedClient, RequestSealer], Fields], slugs: set[str], path: str
) -> None:
    """It needs nothing but the public statement to seal a request."""

    async def ask() -> SealedAnswer:
        statement = await it.client.refresh()
        sealer = RequestSealer(statement.configs[0], secrets.token_bytes(32))
        head = RequestHead(b"GET", path.encode(), fields(it.client, sealer), authority=b"home")
        return await it.client.sent(seal_request(sealer, Message(head, b"")), sealer)

    it = place.setting()
    answer = place.run(ask())
    assert answer.status in (400, 401)
    assert place.run(answer.problem()) in slugs
    assert it.engine == []


def test_a_cloud_that_goes_on_behind_a_devices_own_head(place: Place) -> None:
    """It knows the first bytes of a real request, and puts chunks of its own behind them."""

    async def check() -> None:
        it = place.setting()
        assert await it.ask() == TRUTH
        pieces = take_apart(it.sealed, REQUEST_HEAD)
        for spliced in (
            replace(pieces, chunks=(), final=secrets.token_bytes(64)),
            replace(pieces, chunks=(pieces.chunks[0], secrets.token_bytes(64))),
        ):
            given = await taken(await it.cloud.send("POST", it.client.target, REQUEST_TYPE, spliced.encode()))
            assert b"token" not in given.content
        assert it.engine == [QUESTION]

    place.run(check())


def test_a_cloud_that_knows_a_pairings_name_but_not_its_secret(place: Place) -> None:
    """The name passes in the clear while somebody pairs."""

    async def check() -> None:
        home = place.homes[0]
        assert home.bridge.home is not None
        link = home.bridge.home.offers.make()
        guess = replace(shared_secret(secrets.token_bytes(32)), id=link.shared.id)
        thief = replace(place.home, key=THIEF, statement=None)
        with pytest.raises(ClearProblemError):
            await thief.introduce("thief", guess)
        answer = await thief.introduce("phone", link.shared)
        assert answer.status == 201, "a wrong guess does not use the link up"
        await answer.read()
        with pytest.raises(ClearProblemError) as caught:
            await replace(thief, key=ec.generate_private_key(ec.SECP256R1())).introduce("second", link.shared)
        assert caught.value.slug == "ohttp-key", "it is good for one device"

    place.run(check())
