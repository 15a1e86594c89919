"""What runs do in the store, each in one transaction."""

import json
from dataclasses import replace

from cloudtolocalllm.bridge.intake import MAX_READ
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.runs import prompt
from cloudtolocalllm.bridge.runs.live import Unstored
from cloudtolocalllm.bridge.runs.prompt import RunOptions
from cloudtolocalllm.bridge.store import attachments, messages, preferences, runs
from cloudtolocalllm.bridge.store.errors import ConflictError
from cloudtolocalllm.bridge.store.runs import End, NewRun, Run
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.contracts.problems import Problem

MAX_ATTACHED = 3 * MAX_READ // 4
"""Bytes of attachments that go to an engine at once: in base64 as many as are read of any request."""


def same(run: Run, new: NewRun) -> Run:
    """Return a run that is asked for once more.

    Raises:
        ConflictError: It is another one.
    """
    if run.conversation != new.conversation:
        raise ConflictError("expected an id that no other run has")
    return run


def begin(tx: Tx, new: NewRun, options: RunOptions) -> tuple[Run, bytes | None]:
    """Make a run; return it with the request to the engine, or None when it was there already.

    Raises:
        StoreError: The conversation or the message to answer is not there, or it does not fit.
        RefusalError: It is too much for an engine.
    """
    if new.id is not None and (known := runs.find(tx, new.id)) is not None:
        return same(known, new), None
    content = request(tx, new, options)
    return runs.begin(tx, replace(new, options=json.dumps(options.given()))), content


def request(tx: Tx, new: NewRun, options: RunOptions) -> bytes:
    """Return the request to the engine.

    Raises:
        StoreError: The conversation or the message to answer is not there, or not whole.
        RefusalError: It is too much for an engine.
    """
    path = messages.path(tx, new.conversation, new.parent)
    if runs.is_written(tx, [message.run for message in path if message.run is not None]):
        raise ConflictError("expected to answer what is whole, got an answer that is being written; wait for its end")
    size = prompt.attached_size(path)
    if size > MAX_ATTACHED:
        raise RefusalError(
            Problem.TOO_LARGE,
            f"The pictures and texts attached to this conversation are {size} bytes together, and an engine gets at "
            f"most {MAX_ATTACHED}; begin a new conversation.",
        )
    attached = {sha256: attachments.get(tx, sha256) for sha256 in prompt.attached_to(path)}
    return prompt.request(path, new.model, options, attached, preferences.get(tx).system_prompt)


def write(tx: Tx, batch: list[Unstored], unfinished: dict[str, End]) -> None:
    """Write down what runs have new.

    Args:
        tx: The store.
        batch: Of runs that go on.
        unfinished: How runs ended of which that could not be written before.
    """
    for what in batch:
        runs.append(tx, what.id, what.pieces)
        if what.state is not None:
            runs.set_state(tx, what.id, what.state)
        if what.end is not None:
            runs.finish(tx, what.id, what.end)
    for id_, end in unfinished.items():
        runs.finish(tx, id_, end)
