"""Pairing this computer with a home by a link that was made there."""

import json
import re
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.home_client import HomeClient, InnerRequest, whole
from cloudtolocalllm.connect.homes import Home, Homes
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.refusals import read_problem
from cloudtolocalllm.connect.vault import Vault
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.keychain import StorageError
from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.device import public_point
from cloudtolocalllm.sealed.errors import SealedError
from cloudtolocalllm.sealed.pairing import MAX_NAME, Introduction, PairingLink

_UNPRINTABLE: Final = re.compile(r"\s+")
_USED: Final = "The link was used or has expired: it is good for one device and ten minutes. Make a new one at home."


@dataclass(frozen=True, slots=True)
class NewHome:
    """How this computer and the home are to call each other."""

    device_name: str
    """What the home's list of devices shows."""
    name: str = ""
    """What the list here shows; "" for the bridge's id."""
    priority: int = 0


async def pair(
    link: ServerLink, invitation: PairingLink, new: NewHome, homes: Homes, vault: Vault, clock: Clock
) -> Home:
    """Make a key pair, have the home take it, and keep both.

    The key is kept before it is sent: a pairing that the home has taken must not be lost here.

    Raises:
        HomeError: The home or the server refuses.
        StorageError: The key cannot be kept.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    introduction = Introduction(public_point(key), clean_name(new.device_name))
    home = Home(
        server=link.address.url,
        bridge_id=invitation.bridge_id,
        fingerprint=invitation.fingerprint,
        device_id=introduction.device_id,
        name=clean_name(new.name or invitation.bridge_id),
        priority=new.priority,
        added=clock.wall(),
    )
    before = next((known for known in homes.load() if known.id == home.id), None)

    async def note(seq: int) -> None:
        homes.note_seq(home, seq)

    client = HomeClient(
        link, home.bridge_id, home.fingerprint, key, clock, seen=homes.seen(home), note_seq=note
    )  # fmt: skip
    vault.put(home.secret_name, export_key(key))
    try:
        try:
            await _introduce(client, introduction, invitation)
        except HomeError as error:
            if error.fault is Fault.REFUSED or not await _taken(client):
                raise
        homes.save(home)
    except BaseException:
        vault.remove(home.secret_name)
        raise
    if before is not None:
        vault.remove(before.secret_name)
    return home


async def _introduce(client: HomeClient, introduction: Introduction, invitation: PairingLink) -> None:
    for attempt in (1, 2):
        try:
            answer = await client.introduce(introduction, invitation.shared)
        except HomeError as error:
            if error.fault is not Fault.STALE_KEY:
                raise
            if attempt == 2:
                raise HomeError(Fault.REFUSED, Problem.FORBIDDEN, _USED) from None
            continue  # the home may have been restarted since its statement was made
        try:
            head, content = await whole(answer)
        finally:
            answer.close()
        if 200 <= head.status < 300:
            return
        said = read_problem(content)
        raise HomeError(Fault.REFUSED, Problem.FORBIDDEN, said.detail or f"The home refuses (status {head.status}).")


async def _taken(client: HomeClient) -> bool:
    """Tell whether the home knows this device, when its answer to the pairing was lost."""
    try:
        answer = await client.ask(InnerRequest("GET", "/ollama/api/version"), fresh=True)
        try:
            head, _ = await whole(answer)
        finally:
            answer.close()
    except HomeError:
        return False
    return head.status != Problem.UNAUTHENTICATED.value.status


def clean_name(name: str) -> str:
    """Return a name that the home takes: 1 to 64 printable characters."""
    text = "".join(c for c in _UNPRINTABLE.sub(" ", name) if c.isprintable()).strip()[:MAX_NAME].strip()
    return text or "computer"


def export_key(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a device's private key as a text to keep."""
    return json.dumps(
        {"pkcs8": base64url.encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))}
    )


def import_key(text: str) -> ec.EllipticCurvePrivateKey:
    """Read what `export_key` wrote.

    Raises:
        StorageError: It is none.
    """
    try:
        key = load_der_private_key(base64url.decode(json.loads(text)["pkcs8"], "a key"), None)
    except (ValueError, KeyError, TypeError, SealedError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise StorageError("expected this device's private key where it is kept; pair this home again")
    return key
