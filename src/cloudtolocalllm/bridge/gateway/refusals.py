"""What is answered to a request that is refused: in the clear what could not be opened, sealed what could."""

import logging
from collections.abc import Awaitable

from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError, problem_response
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.sealed import dates
from cloudtolocalllm.sealed.device import DATE_FIELD
from cloudtolocalllm.sealed.errors import (
    BusyError,
    MalformedError,
    ProofError,
    ReplayedError,
    SealedError,
    SkewError,
    UnknownDeviceError,
    UnknownKeyError,
)
from cloudtolocalllm.sealed.limits import MAX_SKEW
from cloudtolocalllm.sealed.replay import MAX_REMEMBERED
from cloudtolocalllm.tunnel import ResponseHead

log = logging.getLogger(__name__)

Told = tuple[int, Headers, bytes]
"""Status, fields and content of a small answer."""

BUSY_WAIT = 2 * MAX_SKEW
"""Seconds after which remembered requests have aged."""


def unopened(error: SealedError) -> RefusalError:
    """Return what is said in the clear of a request that could not be opened; nothing of its content."""
    if isinstance(error, UnknownKeyError):
        return RefusalError(
            Problem.OHTTP_KEY,
            "Fetch this machine's key statement and ask once more; a pairing link is good only once.",
        )
    return RefusalError(Problem.BAD_REQUEST, "Expected a whole sealed request, unchanged on its way.")


def unproved(error: SealedError) -> RefusalError:
    """Return what is said, sealed, to whom was opened but did not prove to be a device of this home's, now."""
    match error:
        case UnknownDeviceError():
            return RefusalError(
                Problem.DEVICE_UNKNOWN, "It was never paired, or was removed; pair it with a new link from home."
            )
        case ProofError():
            return RefusalError(Problem.UNAUTHENTICATED, "Expected a proof by this device for this very request.")
        case SkewError():
            return RefusalError(
                Problem.DATE,
                f"Expected a request of the last {MAX_SKEW} s; set this device's clock right, and look at that of "
                "the machine at home.",
            )
        case ReplayedError():
            # Browsers repeat a request by themselves when a kept connection breaks; the answer to the first is lost
            # then. It passes, sealed anew; a conflict would be taken for the home's last word.
            return RefusalError(Problem.CONNECTION_LOST, "This very request was received before; seal it anew.")
        case BusyError():
            return RefusalError(
                Problem.OVERLOADED,
                f"At most {MAX_REMEMBERED} requests are taken in {BUSY_WAIT} s.",
                retry_after=BUSY_WAIT,
            )
        case MalformedError():
            return RefusalError(Problem.BAD_REQUEST, "Expected date, device and proof, each once and of its form.")
        case _:
            return RefusalError(Problem.BAD_REQUEST, "Expected a sealed request of this format.")


async def found(work: Awaitable[Told]) -> Told:
    """Return what work comes to, or the problem that keeps it from that: nobody may be left without an answer."""
    try:
        return await work
    except RefusalError as refusal:
        return problem_response(refusal)
    except Exception:
        log.exception("a request failed")
        return problem_response(RefusalError(Problem.INTERNAL, "The bridge has logged what it was."))


def say(port: Port, status: int, headers: Headers, content: bytes) -> None:
    """Answer with something small, in the clear or sealed, as the port has it."""
    port.send_head(ResponseHead(status, headers))
    if content:
        port.send_data(content)
    port.end()


def refuse(port: Port, refusal: RefusalError, now: float) -> None:
    """Answer with a problem.

    Args:
        port: Where to.
        refusal: Why.
        now: Seconds since the epoch.
    """
    status, headers, content = problem_response(refusal)
    if refusal.problem is Problem.DATE:  # RFC 9458 §6.5.2: the client may learn how far off its clock is
        headers = (*headers, (DATE_FIELD, dates.encode(now)))
    say(port, status, headers, content)
