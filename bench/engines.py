"""The paced engine: the scripted demo engine as a process, its pace and its tokens set by each request."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.engines import EngineProcess, demo_engine

MODEL = "demo"


@contextmanager
def paced_engine() -> Iterator[EngineProcess]:
    """Run the engine; its model is always loaded, and nothing precedes the first token."""
    with demo_engine(load_seconds=0, prefill_seconds=0, keep_alive=100_000, tokens_per_second=0) as engine:
        yield engine


def question(*, pace: float = 0, tokens: int = 0, stream: bool = True, **options: Any) -> str:
    """Return the content of a chat request.

    Args:
        pace: Tokens a second; 0 for as fast as they are read.
        tokens: How many; 0 for the length of the script.
        stream: Whether to stream.
        options: Further ones of the demo engine, without their prefix.
    """
    asked = {"tokens_per_second": pace, "tokens": tokens, **options}
    value = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "go"}],
        "stream": stream,
        "options": {f"demo_{name}": option for name, option in asked.items()},
    }
    return json.dumps(value)
