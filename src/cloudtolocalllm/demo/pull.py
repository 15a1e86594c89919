"""`/api/pull`, scripted: progress as Ollama reports it, for nothing is downloaded."""

import asyncio
from collections.abc import Iterator
from typing import Any

from cloudtolocalllm.demo.answer import encode
from cloudtolocalllm.demo.call import Call
from cloudtolocalllm.demo.residence import Model, full_name
from cloudtolocalllm.runtime.http1.messages import CHUNKED

STEPS = 10
INTERVAL = 0.05
"""Seconds between two lines of progress."""


class Pull:
    """One pull under way."""

    def __init__(self, call: Call, name: str, *, stream: bool) -> None:
        self._call = call
        self._model = Model(full_name(name), 0.0)
        self._stream = stream
        self._lines = self._script()
        self._timer: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin the response."""
        if self._stream:
            self._call.responder.start(200, ((b"content-type", b"application/x-ndjson"),), CHUNKED)
        self._step()

    def cancel(self) -> None:
        """The client went away."""
        if self._timer is not None:
            self._timer.cancel()

    def _script(self) -> Iterator[dict[str, Any]]:
        yield {"status": "pulling manifest"}
        if not self._model.name.startswith("demo"):
            # Pretending to have fetched somebody's model would be a lie; this is what Ollama says of unknown names.
            yield {"error": "pull model manifest: file does not exist (the demo engine only has models named demo)"}
            return
        digest, size = self._model.digest, self._model.size
        for step in range(1, STEPS + 1):
            done = size * step // STEPS
            progress = {"digest": f"sha256:{digest}", "total": size, "completed": done}
            yield {"status": f"pulling {digest[:12]}", **progress}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self._call.engine.residence.add(self._model.name)
        yield {"status": "success"}

    def _step(self) -> None:
        line = next(self._lines, None)
        if line is None:
            if self._stream:
                self._call.responder.end()
            return
        if self._stream:
            self._call.responder.write(encode(line) + b"\n")
        elif "error" in line or line["status"] == "success":
            self._call.respond_json(500 if "error" in line else 200, line)
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._step)
