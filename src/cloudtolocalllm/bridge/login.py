"""Pairing with a person's help: this machine's browser says yes (RFC 8252), or one elsewhere by a code (RFC 8628).

The key pair is made here and stays; every step shows that the same machine goes on.
"""

import asyncio
import base64
import hashlib
import hmac
import html
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cloudtolocalllm import __version__
from cloudtolocalllm.auth.dpop import SCHEME, ProofKey
from cloudtolocalllm.bridge.cloud import Answer, Cloud
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError, error_code
from cloudtolocalllm.bridge.pairing import identity_of
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.http1 import Headers, HttpServer, Request, RequestHandler, Responder

PAIRING = "/api/bridge/pairing"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CALLBACK = "/callback"
MAX_WAIT = 900.0
"""Seconds that are waited for a person, whatever the server says."""
MAX_INTERVAL = 30.0
"""Seconds between two questions at most, however often the server says to slow down."""
SLOWER = 5.0
"""Seconds that are added when it does (RFC 8628 §3.5)."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a person has to be shown."""

    code: str
    """To be typed at `url`."""
    url: str
    complete_url: str
    """`url` with the code in it, for a QR code."""
    seconds: float
    """For which it holds."""


class Login:
    """One pairing of this machine with a server."""

    def __init__(self, server: str, name: str, *, clock: Clock | None = None) -> None:
        """Make one, with a key pair of its own.

        Args:
            server: URL of the cloud side.
            name: Under which people see this machine.
            clock: None for the machine's.

        Raises:
            PairingError: The URL is none.
        """
        self._cloud = Cloud(server)
        self._name = name
        self._clock = clock or SystemClock()
        self._key = ProofKey.generate()
        self._nonce = ""

    async def by_code(self, show: Callable[[Invitation], None]) -> BridgeIdentity:
        """Have a person confirm a short code in a browser anywhere.

        Args:
            show: Called once with what the person needs.

        Raises:
            PairingError: Refused, not in time, or the server does not answer.
        """
        try:
            value = await self._begin("device", {})
            invitation = _invitation(value)
            interval = _number(value, "interval", MAX_INTERVAL)
            show(invitation)
            async with asyncio.timeout(invitation.seconds):
                return await self._poll(str(value.get("device_code")), interval)
        except TimeoutError:
            raise PairingError("nobody confirmed the code in time; start again") from None
        finally:
            await self._cloud.close()

    async def by_browser(self, show: Callable[[str], None]) -> BridgeIdentity:
        """Have a person confirm in this machine's own browser, which is sent back to us.

        Args:
            show: Called once with the page's URL, to open it.

        Raises:
            PairingError: Refused, not in time, or the server does not answer.
        """
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        callback = _Callback(state)
        listener = HttpServer(callback)
        port = await listener.listen_tcp("127.0.0.1", 0)
        try:
            value = await self._begin(
                "loopback",
                {
                    "redirect_uri": f"http://127.0.0.1:{port}{CALLBACK}",
                    "code_challenge": challenge,
                    "state": state,
                },
            )
            show(_page(value, "authorization_uri"))
            async with asyncio.timeout(_number(value, "expires_in", MAX_WAIT)):
                code = await callback.code
            answer = await self._token({"grant_type": "authorization_code", "code": code, "code_verifier": verifier})
            return self._identity(answer)
        except TimeoutError:
            raise PairingError("nobody confirmed in time; start again") from None
        finally:
            await listener.close(1.0)
            await self._cloud.close()

    async def _begin(self, way: str, members: Mapping[str, str]) -> dict[str, Any]:
        body = {"name": self._name, "version": __version__, "jwk": self._key.public_jwk(), **members}
        answer = await self._cloud.ask("POST", f"{PAIRING}/{way}", body)
        if answer.status == 429:
            raise PairingError("the server has too many pairings from here; wait a few minutes")
        if answer.status != 200:
            raise PairingError(f"the server takes no pairing (status {answer.status}). {answer.detail}".rstrip())
        self._nonce = answer.headers.get("dpop-nonce", "")
        return answer.value

    async def _poll(self, device_code: str, interval: float) -> BridgeIdentity:
        while True:
            await asyncio.sleep(interval)
            try:
                answer = await self._token({"grant_type": DEVICE_GRANT, "device_code": device_code})
            except PairingError:
                continue  # the server or the way to it is away for a moment: the time limit ends this
            error = answer.value.get("error")
            if answer.status == 429 or error == "slow_down":
                interval = min(interval + SLOWER, MAX_INTERVAL)
            elif error != "authorization_pending" and answer.status < 500:
                return self._identity(answer)

    async def _token(self, body: Mapping[str, str]) -> Answer:
        answer = await self._prove(body)
        if answer.status == 401 and error_code(answer.headers) == "use_dpop_nonce":
            answer = await self._prove(body)
        return answer

    async def _prove(self, body: Mapping[str, str]) -> Answer:
        target = f"{PAIRING}/token"
        proof = self._key.prove("POST", self._cloud.url + target, now=self._clock.wall(), nonce=self._nonce)
        answer = await self._cloud.ask("POST", target, body, {SCHEME: proof})
        self._nonce = answer.headers.get("dpop-nonce", self._nonce)
        return answer

    def _identity(self, answer: Answer) -> BridgeIdentity:
        match answer.value.get("error"):
            case "access_denied":
                raise PairingError(f"the pairing was denied. {answer.detail}".rstrip())
            case "expired_token":
                raise PairingError("the code was used or has expired; start again")
        if answer.status != 200:
            raise PairingError(f"expected a credential, got status {answer.status}. {answer.detail}".rstrip())
        return identity_of(answer, self._cloud.url, self._key, self._clock)


class _Callback:
    """Takes the one request with which the browser comes back."""

    def __init__(self, state: str) -> None:
        self._state = state
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Answer a request."""
        query = parse_qs(request.target.partition("?")[2], max_num_fields=8) if len(request.target) < 2048 else {}
        code, error, state = (query.get(name, [""])[0] for name in ("code", "error", "state"))
        if request.path != CALLBACK or request.method != "GET":
            _tell(responder, 404, "There is nothing here.")
        elif not hmac.compare_digest(state.encode(), self._state.encode()):
            # Any page may send a browser here; only the server was told the state.
            _tell(responder, 400, "This is not the answer to this pairing.")
        elif code:
            if not self.code.done():
                self.code.set_result(code)
            _tell(responder, 200, "Confirmed. You can close this window; the terminal goes on.")
        else:
            if not self.code.done():
                text = "denied" if error == "access_denied" else "not granted"
                self.code.set_exception(PairingError(f"the pairing was {text}"))
            _tell(responder, 200, "The pairing was not granted. You can close this window.")
        return _Answered()


class _Answered:
    def on_body(self, data: bytes) -> None:
        """Not wanted."""

    def on_body_end(self, trailers: Headers) -> None:
        """Not wanted."""

    def on_disconnect(self) -> None:
        """Nothing is under way."""

    def on_writable(self, writable: bool) -> None:
        """Nothing is under way."""


def _tell(responder: Responder, status: int, text: str) -> None:
    content = f"<!doctype html><meta charset=utf-8><title>CloudToLocalLLM</title><p>{html.escape(text)}</p>"
    headers = (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"referrer-policy", b"no-referrer"),
        (b"connection", b"close"),
    )
    responder.respond(status, headers, content.encode())


def _invitation(value: Mapping[str, Any]) -> Invitation:
    code = value.get("user_code")
    if not isinstance(code, str) or not 0 < len(code) <= 32 or not code.isprintable():
        raise PairingError("expected a short code from the server")
    return Invitation(
        code,
        _page(value, "verification_uri"),
        _page(value, "verification_uri_complete"),
        _number(value, "expires_in", MAX_WAIT),
    )


def _page(value: Mapping[str, Any], member: str) -> str:
    """Return a URL that may be printed and opened."""
    url = value.get(member)
    text = url if isinstance(url, str) and len(url) <= 1024 and url.isascii() and url.isprintable() else ""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in text:
        raise PairingError(f"expected member {member} of the server's answer to be the URL of a page")
    return text


def _number(value: Mapping[str, Any], member: str, limit: float) -> float:
    number = value.get(member)
    if not isinstance(number, int | float) or not number > 0:
        raise PairingError(f"expected member {member} of the server's answer to be a number of seconds")
    return min(float(number), limit)
