"""A machine that asks to be paired, by a foreign HTTP client."""

import base64
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.support.api_parts import MARK, ORIGIN, RunningApi

from cloudtolocalllm.auth.dpop import ProofKey

PAIRING = "/api/bridge/pairing"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
STATE = "xyzXYZ0123456789"
REDIRECT = "http://127.0.0.1:49152/callback"


@dataclass
class Machine:
    """One that has a key and no credential."""

    api: RunningApi
    key: ProofKey = field(default_factory=ProofKey.generate)
    address: str = "203.0.113.7"

    async def ask(self, way: str, **members: Any) -> httpx.Response:
        """Ask to be paired."""
        body = {"name": "Desktop", "version": "0.1.0", "jwk": self.key.public_jwk(), **members}
        async with self.api.client(**{"x-forwarded-for": self.address}) as client:
            return await client.post(f"{PAIRING}/{way}", json=body)

    async def device(self, **members: Any) -> dict[str, Any]:
        response = await self.ask("device", **members)
        assert response.status_code == 200, response.text
        value: dict[str, Any] = response.json()
        return value

    async def loopback(self, **members: Any) -> dict[str, Any]:
        given = {"redirect_uri": REDIRECT, "code_challenge": CHALLENGE, "state": STATE, **members}
        response = await self.ask("loopback", **given)
        assert response.status_code == 200, response.text
        value: dict[str, Any] = response.json()
        return value

    async def token(self, *, proof: str | None = None, **body: str) -> httpx.Response:
        """Ask for the credential; `proof` stands in for a proof that holds."""
        if proof is None:
            proof = self.key.prove("POST", f"{ORIGIN}{PAIRING}/token", now=time.time(), nonce=self.api.nonce())
        async with self.api.client() as client:
            return await client.post(f"{PAIRING}/token", json=body, headers={"dpop": proof} if proof else {})

    async def poll(self, device_code: str, *, proof: str | None = None) -> httpx.Response:
        return await self.token(proof=proof, grant_type=DEVICE_GRANT, device_code=device_code)

    async def exchange(self, code: str, verifier: str = VERIFIER) -> httpx.Response:
        return await self.token(grant_type="authorization_code", code=code, code_verifier=verifier)


async def decide(client: httpx.AsyncClient, reference: str, what: str = "approve") -> httpx.Response:
    """Click."""
    return await client.post(f"{PAIRING}/requests/{reference}/{what}", json={}, headers=MARK)


async def look(client: httpx.AsyncClient, reference: str) -> httpx.Response:
    return await client.get(f"{PAIRING}/requests/{reference}", headers=MARK)


def error(response: httpx.Response) -> str:
    """Return the OAuth error of a refusal, which is a problem document too."""
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"
    value = response.json()
    assert value["type"] == "urn:c2l:problem:bad-request"
    return str(value["error"])
