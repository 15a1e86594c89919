"""The files of one log, and how they are named, written and read.

key.json                      the private key and the origin; 0600
log.vkey                      the public key, for whoever verifies
00000000000000000000.jsonl    a segment: records, one a line; named after the index of its first
00000000000000000000.edge     the tree's edge before that first record, so that a start reads one segment only
00000000000000000000.checkpoints   the checkpoints made while that segment grew, one line of JSON each
checkpoint                    the newest checkpoint
lock                          held by the one writer
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudtolocalllm.audit.checkpoint import Signer
from cloudtolocalllm.audit.tree import Edge
from cloudtolocalllm.runtime import files

LOCK = "lock"
KEY = "key.json"
PUBLIC_KEY = "log.vkey"
CHECKPOINT = "checkpoint"
DAMAGED = "damaged-"
MAX_LINE = 65_536
"""Bytes of a record that is read; ours have at most some thousands."""

_SEGMENT = re.compile(r"(\d{20})\.(jsonl|edge|checkpoints)", re.ASCII)


class DamagedError(Exception):
    """A log does not fit together; the text says where."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a log's records."""

    folder: Path
    first: int
    """Index of its first record."""

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.first:020d}.{kind}"

    @property
    def records(self) -> Path:
        """The file of its records."""
        return self._path("jsonl")

    @property
    def edge_file(self) -> Path:
        """The file of the edge before it."""
        return self._path("edge")

    @property
    def checkpoints(self) -> Path:
        """The file of its checkpoints."""
        return self._path("checkpoints")

    def edge(self) -> Edge:
        """Read the edge before its first record.

        Raises:
            DamagedError: It cannot be had.
        """
        try:
            value = json.loads(self.edge_file.read_bytes())
            edge = Edge(int(value["size"]), tuple(bytes.fromhex(root) for root in value["roots"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise DamagedError(f"{self.edge_file.name} is missing or malformed") from None
        if edge.size != self.first:
            raise DamagedError(f"{self.edge_file.name} is of {edge.size} records")
        return edge

    def write_edge(self, edge: Edge) -> None:
        """Write the edge before its first record."""
        text = json.dumps({"size": edge.size, "roots": [root.hex() for root in edge.roots]})
        files.replace(self.edge_file, text.encode())

    def lines(self) -> Iterator[bytes]:
        """Yield its records, each with its newline; a last one without is torn.

        Raises:
            DamagedError: A line is longer than any of ours.
        """
        if not self.records.exists():
            return
        with self.records.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise DamagedError(f"{self.records.name} has a line of over {MAX_LINE} bytes")
                yield line


def segments(folder: Path) -> list[Segment]:
    """Return a log's segments in order, also those of which only one of the files is there."""
    found = {int(match[1]) for path in folder.iterdir() if (match := _SEGMENT.fullmatch(path.name))}
    return [Segment(folder, first) for first in sorted(found)]


def notes_in(text: str) -> list[str]:
    """Return the checkpoints in a text: one note, or lines that hold `{"checkpoint": NOTE}`, as sinks write them.

    What a collector puts before the JSON of a line, such as a syslog header, is skipped.
    """
    found: list[str] = []
    for line in text.splitlines():
        start = line.find('{"')
        with contextlib.suppress(ValueError, RecursionError):
            value: Any = json.loads(line[start:]) if start >= 0 else None
            if isinstance(value, dict) and isinstance(value.get("checkpoint"), str):
                found.append(value["checkpoint"])
    return found or ([text] if "\n\n\u2014 " in text else [])


def checkpoint_line(note: str, now: float) -> bytes:
    """Return a checkpoint as a line for files and sinks, without a newline."""
    return json.dumps({"time": round(now * 1000), "checkpoint": note}, separators=(",", ":")).encode("ascii")


def load_signer(folder: Path, origin: str) -> Signer:
    """Return the log's key; made if there is none yet. Its origin is the one that it was made with.

    Raises:
        DamagedError: The key's file is malformed, or readable by others.
    """
    path = folder / KEY
    if not path.exists():
        signer = _new_key(path, origin)
    else:
        if path.stat().st_mode & 0o077:
            raise DamagedError(f"{KEY} is readable by others: expected mode 0600")
        try:
            value = json.loads(path.read_bytes())
            key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(value["private"]))
            signer = Signer(str(value["origin"]), key)
        except (ValueError, KeyError, TypeError):
            raise DamagedError(f"{KEY} is malformed") from None
    public = f"{signer.verifier}\n".encode()
    if not (folder / PUBLIC_KEY).exists() or (folder / PUBLIC_KEY).read_bytes() != public:
        files.replace(folder / PUBLIC_KEY, public)
    return signer


def set_aside(folder: Path) -> str:
    """Move what is in a damaged log's folder into one below it, and return that one's name."""
    number = 1 + sum(1 for path in folder.iterdir() if path.name.startswith(DAMAGED))
    name = f"{DAMAGED}{number}"
    (folder / name).mkdir(mode=0o700)
    for path in list(folder.iterdir()):
        if path.name != LOCK and not path.name.startswith(DAMAGED):
            path.rename(folder / name / path.name)
    files.sync_folder(folder)
    return name


def _new_key(path: Path, origin: str) -> Signer:
    key = Ed25519PrivateKey.generate()
    signer = Signer(origin, key)
    files.replace(path, json.dumps({"origin": origin, "private": key.private_bytes_raw().hex()}).encode())
    return signer
