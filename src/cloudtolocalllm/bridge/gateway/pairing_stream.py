"""One pairing request on its way in: sealed with a link's secret, and small, so it is taken whole."""

import logging
import secrets
from typing import TYPE_CHECKING

from cloudtolocalllm.bridge.gateway.refusals import Told, found, refuse, say, unopened
from cloudtolocalllm.bridge.gateway.sealed_port import SealedPort
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.sealed.bhttp import RequestHead
from cloudtolocalllm.sealed.errors import SealedError
from cloudtolocalllm.sealed.exchange import RequestReader, read_all
from cloudtolocalllm.sealed.ohttp import RESPONSE_NONCE_BYTES, RequestOpener
from cloudtolocalllm.sealed.pairing import RESPONSE_TYPE, Introduction
from cloudtolocalllm.tunnel import ResetReason

if TYPE_CHECKING:
    from cloudtolocalllm.bridge.gateway.gateway import Gateway

log = logging.getLogger(__name__)

MAX_REQUEST = 16 * 1024
"""Bytes of a sealed pairing request: 1 KiB of a device, its head, and padding."""
JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class PairingStream:
    """The handler of a stream that carries a pairing request."""

    def __init__(self, gateway: "Gateway", stream: Port) -> None:
        """Expect a request.

        Args:
            gateway: Who took it.
            stream: Of the tunnel.
        """
        self._gateway = gateway
        self._stream = stream
        self._data = bytearray()
        self._answered = False
        self._gone = False
        self._port: SealedPort | None = None
        self._pairing_id = b""

    def on_head(self, head: object) -> None:
        """Never called in the role of a bridge."""

    def on_data(self, data: bytes) -> None:
        """Sealed bytes."""
        self._stream.consumed(len(data))
        if self._answered:
            return
        self._data += data
        if len(self._data) > MAX_REQUEST:
            self._refuse_openly(
                RefusalError(Problem.TOO_LARGE, f"Expected a pairing request of at most {MAX_REQUEST} bytes.")
            )

    def on_end(self, trailers: Headers) -> None:
        """The sealed bytes are complete."""
        if not self._answered:
            self._answered = True
            try:
                self._gateway.tasks.start(self._pair(bytes(self._data)), "pairing")
            except RuntimeError:
                self._refuse_openly(RefusalError(Problem.OVERLOADED, "The bridge has too many requests at once."))

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """The client went away; a pairing under way is made all the same."""
        self._answered = self._gone = True
        if self._port is not None:
            self._port.close()

    def on_writable(self) -> None:
        """The stream's window opened."""
        if self._port is not None:
            self._port.writable()

    async def _pair(self, data: bytes) -> None:
        gateway = self._gateway
        try:
            await gateway.offers.take_over()
        except StoreError:
            log.exception("the pairing links in the home store cannot be read")
            self._refuse_openly(RefusalError(Problem.INTERNAL, "The bridge has logged what it was."))
            return
        opener = RequestOpener(gateway.keys.private_key, self._secret)
        try:
            message = read_all(RequestReader(opener), data)
        except SealedError as error:
            log.info("a pairing request could not be opened", extra={"fault": type(error).__name__})
            self._refuse_openly(unopened(error))
            return
        if self._gone or not isinstance(message.head, RequestHead):
            return
        port = self._port = SealedPort(
            self._stream,
            opener.response(secrets.token_bytes(RESPONSE_NONCE_BYTES)),
            RESPONSE_TYPE,
            consumed=lambda size: None,
            on_over=lambda: None,
            on_broken=lambda: None,
        )
        try:
            said = gateway.reception.introduced(opener, message.head, message.content)
        except RefusalError as refusal:
            refuse(port, refusal, gateway.clock.wall())
        else:
            say(port, *await found(self._let_in(said)))

    async def _let_in(self, said: Introduction) -> Told:
        status, content = await self._gateway.reception.pair(said, self._pairing_id)
        return status, JSON, content

    def _secret(self, pairing_id: bytes) -> bytes | None:
        self._pairing_id = pairing_id
        return self._gateway.offers.secret(pairing_id)

    def _refuse_openly(self, refusal: RefusalError) -> None:
        self._answered = True
        if not self._gone:
            refuse(self._stream, refusal, self._gateway.clock.wall())
