"""A bridge that answers every request at once: `python -m bench.standin_bridge`; a job on stdin."""

import json
import sys

from cloudtolocalllm.link import Stream, StreamHandler, TunnelClient
from cloudtolocalllm.link.client import DialTarget
from cloudtolocalllm.tunnel import Headers, RequestHead, ResetReason, ResponseHead

CONTENT = json.dumps(
    {"model": "demo", "message": {"role": "assistant", "content": "Hello"}, "done": True, "done_reason": "stop"}
).encode()
HEAD = ResponseHead(200, ((b"content-type", b"application/json"), (b"content-length", str(len(CONTENT)).encode())))


class Answerer:
    """Answers when the request is complete."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def on_head(self, head: ResponseHead) -> None:
        """Not called at this side."""

    def on_data(self, data: bytes) -> None:
        self._stream.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        self._stream.send_head(HEAD)
        self._stream.send_data(CONTENT)
        self._stream.end()

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """Nothing runs."""

    def on_writable(self) -> None:
        """One answer fits the window."""


def accept(head: RequestHead, stream: Stream) -> StreamHandler:
    return Answerer(stream)


async def main() -> None:
    job = json.loads(sys.stdin.readline())

    async def target() -> DialTarget:
        return DialTarget(job["url"], {"c2l-assertion": job["assertion"]})

    await TunnelClient(target, accept).run()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
