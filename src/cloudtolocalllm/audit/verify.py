"""Finds what was changed in a log: reads all of it, hashes every record anew, and compares with every checkpoint."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloudtolocalllm.audit import folder as files
from cloudtolocalllm.audit.checkpoint import CheckpointError, Verifier
from cloudtolocalllm.audit.folder import DamagedError, Segment
from cloudtolocalllm.audit.tree import Edge, leaf_hash

MAX_FAULTS = 50
"""Faults that are told one by one."""


@dataclass(slots=True)
class Report:
    """What was found."""

    origin: str = ""
    size: int = 0
    """Whole records."""
    covered: int = 0
    """Records that a checkpoint covers and that are as they were when it was signed."""
    checkpoints: int = 0
    """Checkpoints compared."""
    foreign: int = 0
    """Given checkpoints of other logs, which say nothing about this one."""
    given: int = 0
    """Given checkpoints of this log."""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no fault but worth knowing."""

    @property
    def good(self) -> bool:
        """Whether nothing was changed, as far as the checkpoints can tell."""
        return not self.faults

    def fault(self, text: str) -> None:
        """Add a fault, up to MAX_FAULTS."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)


def verify(folder: Path, *, key: Verifier | None = None, given: Iterable[str] = ()) -> Report:
    """Check a log.

    Args:
        folder: Its files. It may be written meanwhile.
        key: The log's public key as somebody trustworthy has it; None to take the one in the folder, which whoever
            changed the rest could have changed too.
        given: Checkpoints from elsewhere: notes, or text in which sinks wrote them.

    Returns:
        What was found. A missing or unreadable file is a fault in it, not an error.
    """
    report = Report()
    verifier = key or _own_key(folder, report)
    if verifier is None:
        return report
    report.origin = verifier.name
    try:
        # Before the records, so that a checkpoint that is being made meanwhile is not held against them.
        wanted = _checkpoints(folder, verifier, report, given)
        _walk(folder, wanted, report)
    except (DamagedError, OSError) as error:
        report.fault(str(error))
    return report


def records(folder: Path) -> Iterator[bytes]:
    """Yield a log's whole records in order, without newlines.

    Raises:
        DamagedError: A line is longer than any of ours.
    """
    for segment in files.segments(folder):
        for line in segment.lines():
            if line.endswith(b"\n"):
                yield line[:-1]


def logs_below(folder: Path) -> list[Path]:
    """Return the folders of logs in a folder: itself, if it is one, or those directly below."""
    if not folder.is_dir():
        return []
    if _is_log(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_log(path))


def _is_log(folder: Path) -> bool:
    return any((folder / name).exists() for name in (files.PUBLIC_KEY, files.CHECKPOINT, files.KEY, files.LOCK))


def _own_key(folder: Path, report: Report) -> Verifier | None:
    try:
        return Verifier.parse((folder / files.PUBLIC_KEY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        report.fault(f"the log's public key cannot be used: {error}")
        return None


@dataclass(slots=True)
class _Wanted:
    """The roots that checkpoints say the log had."""

    roots: dict[int, dict[bytes, str]] = field(default_factory=dict)
    """By size: the roots, and where they were found."""

    def add(self, size: int, root: bytes, where: str) -> None:
        self.roots.setdefault(size, {}).setdefault(root, where)


def _checkpoints(folder: Path, verifier: Verifier, report: Report, given: Iterable[str]) -> _Wanted:
    wanted = _Wanted()
    for segment in files.segments(folder):
        if segment.checkpoints.exists():
            with segment.checkpoints.open(encoding="utf-8", errors="replace") as lines:
                _add_history(lines, segment.checkpoints.name, verifier, report, wanted)
    try:
        note = (folder / files.CHECKPOINT).read_text(encoding="utf-8")
        newest = verifier.open(note)
        wanted.add(newest.size, newest.root, "the newest checkpoint")
    except (OSError, UnicodeDecodeError, CheckpointError) as error:
        report.fault(f"the newest checkpoint cannot be used: {error}")
    for text in given:
        _add_given(text, verifier, report, wanted)
    report.checkpoints = sum(len(roots) for roots in wanted.roots.values())
    return wanted


def _add_history(lines: Iterable[str], name: str, verifier: Verifier, report: Report, wanted: _Wanted) -> None:
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            report.notes.append(f"{name}: the last line is torn")
            continue
        notes = files.notes_in(line)
        try:
            found = verifier.open(notes[0] if notes else "")
            wanted.add(found.size, found.root, f"{name}, line {number}")
        except CheckpointError as error:
            report.fault(f"{name}, line {number}: no checkpoint of this log: {error}")


def _add_given(text: str, verifier: Verifier, report: Report, wanted: _Wanted) -> None:
    notes = files.notes_in(text)
    if not notes:
        report.fault("the given file holds no checkpoint")
    for note in notes:
        if not note.startswith(verifier.name + "\n"):
            report.foreign += 1
            continue
        try:
            found = verifier.open(note)
        except CheckpointError as error:
            report.fault(f"a given checkpoint: {error}")
            continue
        report.given += 1
        wanted.add(found.size, found.root, "a given checkpoint")


def _walk(folder: Path, wanted: _Wanted, report: Report) -> None:
    for path in sorted(folder.glob(f"{files.DAMAGED}*")):
        report.fault(f"{path.name}: a log that did not fit its checkpoints was set aside here")
    edge = Edge()
    parts = files.segments(folder)
    if not parts:
        report.fault("the records are gone")
    _compare(edge, wanted, report)
    for number, segment in enumerate(parts):
        if segment.first != edge.size:
            report.fault(
                f"expected a segment that begins with record {edge.size}, got {segment.records.name}: records were"
                " removed or added"
            )
            break  # every later one would only repeat it
        if segment.edge() != edge:
            report.fault(f"{segment.edge_file.name} does not fit the records before it")
        edge = _walk_segment(segment, edge, wanted, report, last=number == len(parts) - 1)
    report.size = edge.size
    largest = max(wanted.roots, default=0)
    if largest > edge.size:
        where = next(iter(wanted.roots[largest].values()))
        report.fault(f"records are missing: {where} is of {largest} records, the log has {edge.size}")
    elif edge.size > largest:
        report.notes.append(f"no checkpoint covers the last {edge.size - largest} records yet")


def _walk_segment(segment: Segment, edge: Edge, wanted: _Wanted, report: Report, *, last: bool) -> Edge:
    for line in segment.lines():
        if not line.endswith(b"\n"):
            text = f"{segment.records.name}: the last line is torn"
            if last:
                report.notes.append(text)  # a living writer may be in the midst of it
            else:
                report.fault(text)
            break
        edge = edge.appended(leaf_hash(line[:-1]))
        _compare(edge, wanted, report)
    return edge


def _compare(edge: Edge, wanted: _Wanted, report: Report) -> None:
    roots = wanted.roots.get(edge.size)
    if roots is None:
        return
    root = edge.root()
    wrong = [where for expected, where in roots.items() if expected != root]
    if not wrong:
        if not report.faults:
            report.covered = edge.size
        return
    for where in wrong:
        report.fault(
            f"records {report.covered} to {edge.size - 1} are not those that were signed ({where}); "
            f"those before {report.covered} are"
        )
