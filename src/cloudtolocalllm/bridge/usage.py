"""How many tokens an answer cost, read from its first and last bytes: nothing of it is parsed while it passes.

Engines say it at the end: Ollama in the last object, OpenAI's and Anthropic's APIs in `usage`. A quotation mark
inside a JSON text is escaped, so what a model writes cannot look like these members.
"""

import re

HEAD_MAX = 4096
"""Bytes kept of the beginning: Anthropic's API says there what the prompt cost."""
TAIL_MAX = 16 * 1024
"""Bytes kept of the end."""

_NUMBER = rb'[{,\s]"%s"\s*:\s*([0-9]{1,12})(?![0-9.eE])'
_USAGE = re.compile(rb'[{,\s]"usage"\s*:\s*\{')
_USAGE_MAX = 2048
"""Bytes of a usage object that are looked at."""


def _member(name: bytes) -> re.Pattern[bytes]:
    return re.compile(_NUMBER % name)


_OLLAMA = (_member(b"prompt_eval_count"), _member(b"eval_count"))
_TOTAL = _member(b"total_tokens")
_PROMPT = (_member(b"prompt_tokens"), _member(b"input_tokens"))
_ANSWER = (_member(b"completion_tokens"), _member(b"output_tokens"))


class Usage:
    """What one answer cost."""

    __slots__ = ("_events", "_head", "_last", "_mark", "_tail")

    def __init__(self) -> None:
        self._head = b""
        self._tail = bytearray()
        self._mark = b""
        self._last = b""
        self._events = 0

    def begin(self, content_type: bytes) -> None:
        """Take note of how the answer is written.

        Args:
            content_type: As the engine gave it.
        """
        kind = content_type.partition(b";")[0].strip().lower()
        self._mark = {b"text/event-stream": b"\ndata:", b"application/x-ndjson": b"\n"}.get(kind, b"")
        self._last = b"\n" if self._mark == b"\ndata:" else b""

    def feed(self, data: bytes) -> None:
        """Take note of content."""
        if len(self._head) < HEAD_MAX:
            self._head += data[: HEAD_MAX - len(self._head)]
        if self._mark:
            # A mark may be cut by the end of a piece.
            whole = self._last + data
            self._events += whole.count(self._mark)
            keep = len(self._mark) - 1
            self._last = whole[-keep:] if keep else b""
        self._tail += data[-TAIL_MAX:]
        if len(self._tail) > 2 * TAIL_MAX:
            del self._tail[:-TAIL_MAX]

    def total(self) -> int:
        """Return tokens of prompt and answer; of an answer that says nothing, or was cut short, its events."""
        tail = bytes(self._tail[-TAIL_MAX:])
        counted = [_last_of(pattern, tail) for pattern in _OLLAMA]
        if any(count is not None for count in counted):
            return sum(count or 0 for count in counted)
        said = _usage(tail)
        if said is None:
            return self._events
        total = _last_of(_TOTAL, said)
        if total is not None:
            return total
        prompt = _first_found(_PROMPT, said)
        if prompt is None:
            prompt = _first_found(_PROMPT, _usage(self._head, first=True) or b"")
        return (prompt or 0) + (_first_found(_ANSWER, said) or 0)


def _usage(text: bytes, *, first: bool = False) -> bytes | None:
    """Return the bytes from the last, or first, usage object on."""
    begins = [found.end() for found in _USAGE.finditer(text)]
    if not begins:
        return None
    begin = begins[0 if first else -1]
    return text[begin - 1 : begin + _USAGE_MAX]


def _last_of(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None


def _first_found(patterns: tuple[re.Pattern[bytes], ...], text: bytes) -> int | None:
    for pattern in patterns:
        count = _last_of(pattern, text)
        if count is not None:
            return count
    return None
