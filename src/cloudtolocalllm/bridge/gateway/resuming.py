"""Takes up an answer where a device left it: from the journal, also while it is still being written."""

from cloudtolocalllm.bridge.follower import StreamFollower, Watching
from cloudtolocalllm.bridge.journal import Journal, Record
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.resume import Resume, offset_fields
from cloudtolocalllm.tunnel import RequestHead


def name_of(resume: Resume) -> str:
    """Return an exchange's name in the journal."""
    return base64url.encode(resume.exchange)


def take_up(
    journal: Journal, resume: Resume, device: str, head: RequestHead, port: Port, now: float
) -> Watching | None:
    """Go on with an answer that is known; None for one that is to begin.

    Args:
        journal: Where answers are kept.
        resume: Which answer, and from where on.
        device: Whose.
        head: Of the request.
        port: Where it goes.
        now: Seconds that never go back.

    Raises:
        RefusalError: It is another request's, was stopped, broke off for good, or is not there any more.
    """
    record = journal.find(name_of(resume), now, device)
    if record is not None and record.arriving and not record.status:
        # Its connection is lost, most likely, and it may take minutes until anybody on the way notices that.
        record.call_off("asked anew", now)
    if record is None or _came_to_nothing(record):
        if resume.offset:
            raise _unknown("It is not kept any more; ask anew.")
        return None
    if record.request and record.request != f"{head.method} {head.target}":
        raise RefusalError(Problem.BAD_REQUEST, "Expected the method and target that this exchange began with.")
    if record.stopped:
        raise _unknown("It was stopped.")
    if not record.kept:
        raise _unknown("It has become too large to be kept for that; ask anew.")
    if resume.offset > record.size:
        raise RefusalError(Problem.BAD_REQUEST, "The offset lies behind the end of the answer.")
    if record.cut and resume.offset == record.size:
        raise RefusalError(Problem.ENGINE_ERROR, "This is all of the answer that there is; it broke off at home.")
    follower = StreamFollower(
        record, port, offset=resume.offset, replay=True, bodyless=head.method == "HEAD",
        fields=offset_fields(resume.offset),
    )  # fmt: skip
    return Watching(record, follower, port)


def _came_to_nothing(record: Record) -> bool:
    """Tell whether a request never became an answer, as its own way here broke: it may begin again."""
    return bool(record.cut) and not record.stopped and not record.status


def _unknown(detail: str) -> RefusalError:
    return RefusalError(Problem.EXCHANGE_UNKNOWN, detail)
