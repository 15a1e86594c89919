"""How a bridge gets its credential with an API key, renews it, and gives it back. With a person's help: `login`."""

from pathlib import Path

from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.credentials import BridgeCredential
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.auth.signing import KeyRing, TokenRefusedError
from cloudtolocalllm.bridge.cloud import Answer, Cloud
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError, Prover, error_code, is_visible
from cloudtolocalllm.runtime.clock import Clock, SystemClock

PAIR_TARGET = "/api/bridge"
CREDENTIAL_TARGET = "/api/bridge/credential"


async def pair(server: str, api_key: str, name: str, *, clock: Clock | None = None) -> BridgeIdentity:
    """Make this machine a bridge of the account that an API key belongs to; for machines without a person.

    Args:
        server: URL of the cloud side.
        api_key: The account's; used for this one request and not kept.
        name: Under which people see this machine.
        clock: None for the machine's.

    Raises:
        PairingError: The server cannot be reached, or refuses.
    """
    if not is_visible(api_key):
        raise PairingError("expected an API key of visible ASCII characters")
    cloud = Cloud(server)
    key = ProofKey.generate()
    try:
        answer = await cloud.ask(
            "POST", PAIR_TARGET, {"name": name, "jwk": key.public_jwk()}, {"Authorization": f"Bearer {api_key}"}
        )
    finally:
        await cloud.close()
    if answer.status in (401, 403):
        raise PairingError("the server refuses the API key; make one with `cloudtolocalllm keys create`")
    if answer.status != 201:
        raise PairingError(f"expected status 201 from the server, got {answer.status}. {answer.detail}".rstrip())
    return identity_of(answer, cloud.url, key, clock or SystemClock())


async def renew(server: str, prover: Prover, *, clock: Clock | None = None) -> BridgeIdentity:
    """Return the identity with a new credential for the same key; it is not saved.

    Args:
        server: URL of the cloud side.
        prover: Ours.
        clock: None for the machine's.

    Raises:
        PairingError: The server cannot be reached, or refuses.
    """
    identity = prover.identity
    answer = await _signed(server, prover, "POST")
    if answer.status != 200:
        raise PairingError(f"expected a renewed credential, got status {answer.status}. {answer.detail}".rstrip())
    renewed = identity_of(answer, identity.server, identity.key, clock or SystemClock())
    if renewed.bridge_id != identity.bridge_id:
        raise PairingError("expected a credential for this bridge, got one for another")
    return renewed


async def unpair(server: str, prover: Prover) -> bool:
    """Have the server revoke our credential; return whether it is void there now.

    Raises:
        PairingError: The server cannot be reached.
    """
    answer = await _signed(server, prover, "DELETE")
    void = answer.status == 401 and error_code(answer.headers) in ("revoked", "invalid_token")
    return answer.status == 204 or void


async def _signed(server: str, prover: Prover, method: str) -> Answer:
    cloud = Cloud(server)
    try:
        answer = await cloud.ask(method, CREDENTIAL_TARGET, None, prover.fields(method, CREDENTIAL_TARGET))
        if answer.status == 401 and prover.may_retry(answer.headers):
            answer = await cloud.ask(method, CREDENTIAL_TARGET, None, prover.fields(method, CREDENTIAL_TARGET))
    finally:
        await cloud.close()
    prover.learn(answer.headers.get("dpop-nonce"))
    return answer


def identity_of(answer: Answer, server: str, key: ProofKey, clock: Clock) -> BridgeIdentity:
    """Return who we are by the server's answer to a pairing.

    Raises:
        PairingError: The answer is malformed.
    """
    bridge_id, credential, expires = (answer.value.get(member) for member in ("bridge_id", "credential", "expires"))
    now = clock.wall()
    if not isinstance(expires, int | float) or not now < expires < now + 10 * credentials.LIFETIME:
        raise PairingError("expected the server's answer to expire in a time to come; is this machine's clock right?")
    if not is_visible(bridge_id) or not is_visible(credential):
        raise PairingError("expected bridge_id and credential to be texts in the server's answer")
    return BridgeIdentity(server, str(bridge_id), str(credential), key, now, float(expires))


def provision_local(path: Path, ring: KeyRing, *, user: str, server: str, now: float) -> BridgeCredential:
    """Pair this machine with a cloud side whose keys are at hand, without asking it.

    A bridge that the file holds stays the one it is; its credential is renewed when it is due. One that was revoked,
    or is another user's, gives way to a new one.

    Args:
        path: The credential file.
        ring: The cloud's signing keys.
        user: Whose the bridge is.
        server: URL under which the bridge will dial.
        now: Seconds since the epoch.
    """
    try:
        known = BridgeIdentity.load(path)
        # At the time of its making, for an expired one may be renewed here: whoever has the ring may do as he likes.
        said = credentials.verify(ring, known.credential, now=known.issued)
    except (PairingError, TokenRefusedError):
        return _mint_local(path, ring, ProofKey.generate(), credentials.new_bridge_id(), user, server, now)
    if said.user != user or said.bridge != known.bridge_id or said.thumbprint != known.key.thumbprint:
        return _mint_local(path, ring, ProofKey.generate(), credentials.new_bridge_id(), user, server, now)
    if known.renew_at <= now or known.server != server:
        return _mint_local(path, ring, known.key, known.bridge_id, user, server, now)
    return said


def _mint_local(
    path: Path, ring: KeyRing, key: ProofKey, bridge: str, user: str, server: str, now: float
) -> BridgeCredential:
    text, said = credentials.issue(ring, bridge=bridge, user=user, thumbprint=key.thumbprint, now=now)
    BridgeIdentity(server, bridge, text, key, said.issued, said.expires).save(path)
    return said
