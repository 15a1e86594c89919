"""Whether a request comes from a bridge: its credential holds, and it has the key that the credential names.

The credential says who it is, the proof (RFC 9449) that it is not somebody else's, and a proof is taken once.
"""

import logging

from cloudtolocalllm.api.audit import Auditor, Event, Reason, reason_of, request_id
from cloudtolocalllm.api.browser import Fields
from cloudtolocalllm.api.identity import BridgeRefusedError, Identity, Via, challenge
from cloudtolocalllm.api.revocations import Revocations, blocked_member, bridge_member
from cloudtolocalllm.api.state import State
from cloudtolocalllm.auth import credentials, dpop
from cloudtolocalllm.auth.credentials import BridgeCredential
from cloudtolocalllm.auth.dpop import NonceRefusedError, Nonces, Proof, ProofRefusedError
from cloudtolocalllm.auth.signing import KeyRing, TokenRefusedError
from cloudtolocalllm.contracts.authorize import ORIGINAL_HOST
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

USE_NONCE = "use_dpop_nonce"
"""RFC 9449 §8: the same again with the nonce that comes with this answer."""
INVALID_PROOF = "invalid_dpop_proof"
INVALID_TOKEN = "invalid_token"  # noqa: S105 - an error code, no secret
"""The credential does not hold: forged or expired."""
REVOKED = "revoked"
"""The credential was revoked. Told only to a bridge that proved that it is this one; ours, in no RFC."""
BLOCKED = "account_blocked"
"""Its user may not come in now. Ours too; unlike after `REVOKED`, the bridge tries again from time to time."""


class DpopVerifier:
    """Verifies bridges, and whoever pairs one."""

    def __init__(
        self,
        ring: KeyRing,
        nonces: Nonces,
        state: State,
        revocations: Revocations,
        clock: Clock,
        *,
        public_url: str,
        auditor: Auditor | None = None,
    ) -> None:
        """Make a verifier.

        Args:
            ring: Signed the credentials.
            nonces: Make proofs fresh.
            state: Remembers which proofs were taken.
            revocations: Which bridges are void.
            clock: For expiry and nonces.
            auditor: Hears of what does not hold; None for nobody.
            public_url: Where people reach this server: a proof for its host holds, and one for the Host that the
                request names, which the edge has checked (behind a further front the two differ).
        """
        self._ring = ring
        self._nonces = nonces
        self._state = state
        self._revocations = revocations
        self._clock = clock
        self._public = dpop.authority(public_url)
        self._auditor = auditor or Auditor(None, service="api", clock=clock)

    def nonce(self) -> str:
        """Return a nonce for a proof to come."""
        return self._nonces.issue(self._clock.wall())

    def refusal_fields(self, error: str) -> dict[str, str]:
        """Return the fields of a 401 that tell a bridge what was wrong (RFC 9449 §7.1, §8)."""
        return {"www-authenticate": challenge(error), "dpop-nonce": self.nonce()}

    async def verify(
        self, fields: Fields, *, method: str, path: str, again: bool = False, attempt: str = ""
    ) -> Identity:
        """Return the bridge that sent these fields.

        Args:
            fields: Of the request, or of the edge's question about it.
            method: Of the request.
            path: Of the request, without query.
            again: Whether it is the edge's second question about one request, as `take` has it.
            attempt: What tells a repeated call from a replayed proof, as `take` has it.

        Raises:
            BridgeRefusedError: They do not prove it, or it was revoked.
            StateUnavailableError: Whether the proof was used before cannot be told.
        """
        said = await self.prove(fields, method=method, path=path, again=again, attempt=attempt)
        return Identity(Via.BRIDGE, said.user, said.bridge, said.expires, said.issued)

    async def prove(
        self, fields: Fields, *, method: str, path: str, again: bool = False, attempt: str = ""
    ) -> BridgeCredential:
        """As `verify`, and return what the bridge's credential says.

        Args:
            fields: Of the request, or of the edge's question about it.
            method: Of the request.
            path: Of the request, without query.
            again: Whether it is the edge's second question about one request, as `take` has it.
            attempt: What tells a repeated call from a replayed proof, as `take` has it.

        Raises:
            BridgeRefusedError: They do not prove it, or the bridge is revoked.
            StateUnavailableError: Whether the proof was used before cannot be told.
        """
        scheme, _, text = fields.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != dpop.SCHEME.lower():
            raise BridgeRefusedError(INVALID_TOKEN, "Expected Authorization: DPoP CREDENTIAL.")
        text = text.strip(" ")
        try:
            credential = credentials.verify(self._ring, text, now=self._clock.wall())
        except TokenRefusedError as error:
            log.info("credential refused", extra={"cause": str(error)})
            self._refused(reason_of(error), fields)
            detail = "The bridge's credential is not valid or has expired; pair it again."
            raise BridgeRefusedError(INVALID_TOKEN, detail) from None
        proof = self.check(fields, method=method, path=path, credential=text, key=credential.thumbprint)
        await self.take(proof, fields, again=again, attempt=attempt)
        if self._revocations.holds(bridge_member(credential.bridge)):
            self._refused(Reason.REVOKED, fields, credential)
            raise BridgeRefusedError(REVOKED, "This bridge was revoked; pair it again to use it.")
        if self._revocations.holds(blocked_member(credential.user)):
            raise BridgeRefusedError(BLOCKED, "This account is blocked; ask who runs the server.")
        return credential

    def check(self, fields: Fields, *, method: str, path: str, credential: str = "", key: str | None = None) -> Proof:
        """Return the proof in these fields, which holds; it is still to be taken.

        Args:
            fields: Of the request, or of the edge's question about it.
            method: Of the request.
            path: Of the request, without query.
            credential: What it presents; "" for none.
            key: Thumbprint of the key that must have signed; None for whichever did.

        Raises:
            BridgeRefusedError: It does not hold.
        """
        try:
            return dpop.verify(
                fields.get(b"dpop", b"").decode("latin-1"),
                method=method,
                path=path,
                authorities=self._authorities(fields),
                nonces=self._nonces,
                now=self._clock.wall(),
                credential=credential,
                key=key,
            )
        except NonceRefusedError:
            raise BridgeRefusedError(USE_NONCE, "Expected the server's latest nonce; try again with it.") from None
        except ProofRefusedError as error:
            log.info("proof refused", extra={"cause": str(error)})
            self._refused(Reason.PROOF_FAILED, fields)
            raise BridgeRefusedError(INVALID_PROOF, f"The proof of possession is refused: {error}.") from None

    async def take(self, proof: Proof, fields: Fields, *, again: bool = False, attempt: str = "") -> None:
        """Take a proof, which then holds no more.

        What it is to open comes first: of a stranger's proofs, which anybody may make, nothing is to be remembered.

        Args:
            proof: Which holds.
            fields: Of the request, or of the edge's question about it.
            again: Whether the edge asks a second time, because the proxy that the first answer named was dead. Then
                the proof holds once more, if it was taken for this very request: the bridge sent it once.
            attempt: Drawn at random by whoever may call this again after a StateUnavailableError, and the same in
                each call: the proof may have been taken, and only the answer lost. "" for a single call. Nobody else
                has it, so a proof that was overheard is none the better for it.

        Raises:
            BridgeRefusedError: It was taken before.
            StateUnavailableError: That cannot be told.
        """
        name, asked = f"dpop/{proof.thumbprint}/{proof.id}", request_id(fields) or ""
        taken_for = await self._take_once(name, asked, attempt)
        if taken_for is None:
            return
        if again and asked and taken_for == asked and await self._take_once(f"{name}/again", asked, attempt) is None:
            return
        self._refused(Reason.REPLAYED, fields)
        raise BridgeRefusedError(INVALID_PROOF, "The proof of possession was used before.")

    async def _take_once(self, name: str, asked: str, attempt: str) -> str | None:
        """Return None once for each name, and again for the same attempt; else the request that it was taken for."""
        if await self._state.put(name, f"{asked} {attempt}".encode(), dpop.REPLAY_WINDOW, only_new=True):
            return None
        taken = (await self._state.get(name) or b"").decode()
        taken_for, _, by = taken.rpartition(" ")
        return None if attempt and by == attempt else taken_for

    def _refused(self, reason: Reason, fields: Fields, said: BridgeCredential | None = None) -> None:
        """Tell the audit log. A stale nonce is none of it: that is how every bridge gets its first."""
        self._auditor.record(
            Event.CREDENTIAL_REFUSED,
            user=None if said is None else said.user,
            about=None if said is None else said.bridge,
            reason=reason,
            request_id=request_id(fields),
        )

    def _authorities(self, fields: Fields) -> set[str]:
        host = fields.get(ORIGINAL_HOST) or fields.get(b"host", b"")
        named = [dpop.authority(f"{scheme}://{host.decode('latin-1')}") for scheme in ("http", "https")]
        return {name for name in (self._public, *named) if name is not None}
