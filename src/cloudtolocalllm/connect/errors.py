"""Why an attempt to reach a home failed, and what that means for the next one."""

from enum import Enum

from cloudtolocalllm.contracts.problems import Problem


class Fault(Enum):
    """What is known of a request after an attempt failed."""

    NOT_SENT = "not-sent"
    """No connection: nothing left this computer."""
    NOT_TAKEN = "not-taken"
    """The server said that it did not pass the request on."""
    AWAY = "away"
    """The same, as the home is not connected: whatever it was doing, nobody can have it now."""
    LOST = "lost"
    """It was sent, and may be running at home."""
    STALE_KEY = "stale-key"
    """The home does not hold the key any more that the request was sealed to; it cannot have been read."""
    DAMAGED = "damaged"
    """What was sent or came back was changed on the way."""
    REFUSED = "refused"
    """Asking again would not help."""


class HomeError(Exception):
    """A home gave no answer, or none that can be believed. The text is for people and quotes no peer."""

    def __init__(self, fault: Fault, problem: Problem, detail: str, *, retry_after: float | None = None) -> None:
        """Say why.

        Args:
            fault: What it means for the request.
            problem: What the local client is told, if it comes to that.
            detail: One sentence: what happened and what to do.
            retry_after: Seconds after which the server wants to be asked again; None when it did not say.
        """
        super().__init__(detail)
        self.fault = fault
        self.problem = problem
        self.detail = detail
        self.retry_after = retry_after
