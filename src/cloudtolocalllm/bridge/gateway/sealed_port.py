"""The way of an answer out: sealed, padded and timed, into a stream of the tunnel, at the pace of its credit."""

import asyncio
import logging
from collections.abc import Callable

from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.sealed import bhttp
from cloudtolocalllm.sealed.errors import MalformedError
from cloudtolocalllm.sealed.exchange import ResponseWriter
from cloudtolocalllm.sealed.fields import Fields, check_field
from cloudtolocalllm.sealed.ohttp import ResponseSealer
from cloudtolocalllm.sealed.padding import DEFAULT_POLICY, PaddingPolicy
from cloudtolocalllm.tunnel import ResetReason, ResponseHead

log = logging.getLogger(__name__)

MAX_UNSENT = 64 * 1024
"""Bytes that may be sealed and wait for the tunnel's credit; beyond, whoever answers has to wait. With what waits for
the next flush, an answer holds at most a chunk more."""

RESOLUTION = 0.002
"""Seconds by which a timer of the loop may be early."""


class SealedPort:
    """Seals one answer; satisfies `bridge.port.Port`. Its owner calls `writable` and `close`."""

    __slots__ = (
        "_consumed",
        "_ending",
        "_headed",
        "_loop",
        "_media_type",
        "_on_broken",
        "_on_over",
        "_stream",
        "_timer",
        "_unsent",
        "_writer",
        "begun",
        "over",
    )

    def __init__(
        self,
        stream: Port,
        sealer: ResponseSealer,
        media_type: str,
        *,
        consumed: Callable[[int], None],
        on_over: Callable[[], None],
        on_broken: Callable[[], None],
        policy: PaddingPolicy = DEFAULT_POLICY,
    ) -> None:
        """Begin; nothing is sent before the first head.

        Args:
            stream: Of the tunnel.
            sealer: Of this answer.
            media_type: Of the sealed answer.
            consumed: Takes note of content of the request that was passed on, in bytes.
            on_over: Called when nothing more will be sent.
            on_broken: Called when the answer turned out to be one that cannot be sealed.
            policy: How to pad.
        """
        self._stream = stream
        self._writer = ResponseWriter(sealer, policy)
        self._media_type = media_type
        self._consumed = consumed
        self._on_over = on_over
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = bytearray()
        self._headed = False
        self._ending = False
        self.begun = False
        """Whether anything was sent."""
        self.over = False

    @property
    def window(self) -> int:
        """Bytes that `send_data` takes now."""
        return max(0, MAX_UNSENT - len(self._unsent))

    def send_head(self, head: ResponseHead) -> None:
        """Take a response head. A field that the envelope does not allow is left out."""
        if self.over or self._headed:
            return
        fields = _allowed(head.headers)
        try:
            if head.status < 200:
                out = self._writer.inform(bhttp.InformationalHead(head.status, fields))
            else:
                out = self._writer.start(bhttp.ResponseHead(head.status, fields))
                self._headed = True
        except MalformedError as error:
            log.warning("an answer cannot be sealed", extra={"fault": str(error)})
            self._break(ResetReason.ENGINE_ERROR)
            return
        self._send(out)

    def send_data(self, data: bytes) -> None:
        """Take content of at most `window` bytes."""
        if self.over:
            return
        writer = self._writer
        out = writer.write(data, self._loop.time())
        if out:
            self._send(out)
        if self._timer is None and writer.deadline is not None:
            self._timer = self._loop.call_at(writer.deadline, self._flush)

    def end(self, trailers: Headers = ()) -> None:
        """The answer is complete."""
        if self.over:
            return
        if not self._headed:
            self._break(ResetReason.INTERNAL)
            return
        self._stop_timer()
        self._ending = True
        self._send(self._writer.finish(_allowed(trailers)))

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        """The answer broke off: without the final chunk nobody takes it for the whole."""
        if not self.over:
            self.close()
            self._stream.reset(reason, detail)

    def consumed(self, size: int) -> None:
        """Content of the request was passed on."""
        self._consumed(size)

    # --- for the owner --------------------------------------------------------------------------------------------

    def writable(self) -> bool:
        """The stream's window opened; return whether content can be taken again."""
        if not self.over:
            self._drain()
        return not self.over and self.window > 0

    def close(self) -> None:
        """Send nothing any more."""
        if not self.over:
            self.over = True
            self._stop_timer()
            self._unsent.clear()
            self._on_over()

    # --- sending --------------------------------------------------------------------------------------------------

    def _send(self, out: bytes) -> None:
        stream = self._stream
        if not self.begun:
            self.begun = True
            content_type = (b"content-type", self._media_type.encode())
            stream.send_head(ResponseHead(200, (content_type, (b"cache-control", b"no-store"))))
        if not self._unsent and not self._ending and len(out) <= stream.window:
            stream.send_data(out)
        else:
            self._unsent += out
            self._drain()

    def _drain(self) -> None:
        size = min(self._stream.window, len(self._unsent))
        if size > 0:
            self._stream.send_data(bytes(self._unsent[:size]))
            del self._unsent[:size]
        if self._ending and not self._unsent:
            self._stream.end()
            self.close()

    def _flush(self) -> None:
        deadline, self._timer = self._writer.deadline, None
        if self.over or deadline is None:
            return
        now = self._loop.time()
        if deadline - now > RESOLUTION:  # what it was set for was sent before, in a full chunk
            self._timer = self._loop.call_at(deadline, self._flush)
            return
        out = self._writer.poll(max(now, deadline))
        if out:
            self._send(out)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _break(self, reason: ResetReason) -> None:
        self.reset(reason)
        self._loop.call_soon(self._on_broken)


def _allowed(headers: Headers) -> Fields:
    return tuple(field for field in headers if _is_allowed(*field))


def _is_allowed(name: bytes, value: bytes) -> bool:
    try:
        check_field(name, value)
    except MalformedError:
        return False
    return True
