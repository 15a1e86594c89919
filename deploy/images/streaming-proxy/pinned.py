"""Picks packages out of a lock file, with their hashes: `pinned.py NAMES LOCK`; `--check NAMES` verifies them."""

import sys
from importlib.metadata import distributions
from pathlib import Path


def names(path: str) -> set[str]:
    """Return the names that a file lists, one a line."""
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text().splitlines())
    return {line for line in lines if line}


def pick(wanted: set[str], lock: str) -> str:
    """Return the lock's entries for the wanted packages, without their comments."""
    kept: list[str] = []
    found: set[str] = set()
    keep = False
    for line in lock.splitlines():
        if line[:1].isalnum():
            name = line.partition("==")[0]
            keep = name in wanted
            found |= {name} & wanted
        if keep and not line.lstrip().startswith("#"):
            kept.append(line)
    if found != wanted:
        raise SystemExit(f"expected every package in the lock, but it lacks {', '.join(sorted(wanted - found))}")
    return "\n".join(kept) + "\n"


def check(wanted: set[str]) -> None:
    """Exit with a message when an installed package needs one that is not there."""
    there = {d.metadata["Name"].lower().replace("_", "-") for d in distributions()}
    for distribution in distributions():
        if distribution.metadata["Name"].lower().replace("_", "-") not in wanted:
            continue
        for requirement in distribution.requires or ():
            if ";" in requirement:
                continue  # an extra, or for another platform
            name = requirement
            for mark in "<>=!~[ (":
                name = name.partition(mark)[0]
            if name.lower().replace("_", "-") not in there:
                raise SystemExit(f"expected {name}, which {distribution.metadata['Name']} needs: add it to the list")


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(names(sys.argv[2]))
    else:
        sys.stdout.write(pick(names(sys.argv[1]), Path(sys.argv[2]).read_text()))
