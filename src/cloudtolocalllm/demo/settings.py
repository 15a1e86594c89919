"""What can be set of the demo engine, and how it paces and breaks its answers."""

from dataclasses import dataclass, fields, replace
from typing import Any

from cloudtolocalllm.runtime.settings import setting

PREFIX = "C2L_DEMO_"
OPTION_PREFIX = "demo_"
"""Members of a request's `options` that begin so override the pace for this one request."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How one answer goes."""

    tokens_per_second: float = 30.0
    """0 for as fast as the reader takes them."""
    load_seconds: float = 0.5
    """How long a model that is not resident takes to load."""
    prefill_seconds: float = 0.05
    """From the loaded model to the first token."""
    tokens: int = 0
    """0 for the length of the script; else exactly so many, the script starting over as often as needed."""
    token_bytes: int = 0
    """0 for tokens as scripted; else each is padded to so many bytes."""
    timestamps: bool = False
    """Every token is "<monotonic nanoseconds when it was sent> "; for measuring latency on one machine."""
    fail_after_tokens: int = -1
    """After so many tokens the engine reports an error in the stream and ends it; -1 for never."""
    die_after_tokens: int = -1
    """After so many tokens the connection breaks, as when the engine's process dies; -1 for never."""
    hang_after_tokens: int = -1
    """After so many tokens nothing more comes; -1 for never."""
    http_error: int = 0
    """Answer with this status instead; 0 for none."""

    def overridden(self, options: dict[str, Any]) -> "Pace":
        """Return this pace with the `demo_…` members of a request's options.

        Raises:
            ValueError: One has the wrong type; the text says which.
        """
        changes: dict[str, Any] = {}
        for f in fields(self):
            value = options.get(OPTION_PREFIX + f.name)
            if value is None:
                continue
            wanted: type = type(f.default)
            if not isinstance(value, (int, float)) or isinstance(value, bool) != (wanted is bool):
                raise ValueError(f"expected option {OPTION_PREFIX}{f.name} to be a {wanted.__name__}")
            changes[f.name] = wanted(value)
        return replace(self, **changes) if changes else self


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Settings of the demo engine."""

    host: str = setting("The address to listen on.", default="127.0.0.1")
    port: int = setting("The TCP port to listen on; 0 for any free one.", default=11435)
    models: tuple[str, ...] = setting("Names of the models that it pretends to have.", default=("demo:latest",))
    keep_alive: float = setting("Seconds a model stays loaded after its last request.", default=300.0)
    tokens_per_second: float = setting("Pace of an answer; 0 for as fast as the reader takes it.", default=30.0)
    load_seconds: float = setting("Seconds that loading a model takes.", default=0.5)
    prefill_seconds: float = setting("Seconds from the loaded model to the first token.", default=0.05)
    tokens: int = setting("Tokens of every answer, the script repeated as needed; 0 for its own length.", default=0)
    token_bytes: int = setting("Bytes to which every token is padded; 0 for no padding.", default=0)
    fail_after_tokens: int = setting("Tokens after which an answer reports an error; -1 for never.", default=-1)
    die_after_tokens: int = setting("Tokens after which the connection breaks; -1 for never.", default=-1)
    hang_after_tokens: int = setting("Tokens after which nothing more comes; -1 for never.", default=-1)
    http_error: int = setting("The HTTP status with which to refuse every answer; 0 for none.", default=0)
    leash_fd: int = setting(
        "A descriptor that the starting process holds; when it closes the engine stops; -1 for none.", default=-1
    )

    @property
    def pace(self) -> Pace:
        """How answers go unless a request's options say otherwise."""
        return Pace(**{f.name: getattr(self, f.name) for f in fields(Pace) if f.name != "timestamps"})
