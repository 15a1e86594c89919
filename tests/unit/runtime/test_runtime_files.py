"""Files are replaced or made whole, with their mode, and nothing is left beside them."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudtolocalllm.runtime import files


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_the_owners_alone(tmp_path: Path) -> None:
    files.replace(tmp_path / "key", b"one")
    assert mode_of(tmp_path / "key") == 0o600


def test_a_public_file_is_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.replace(tmp_path / "key.pub", b"one", mode=files.PUBLIC)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "key.pub") == 0o644


def test_a_file_is_replaced_and_its_drafts_are_gone(tmp_path: Path) -> None:
    files.replace(tmp_path / "key", b"one")
    files.replace(tmp_path / "key", b"two")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"key": b"two"}


def test_a_file_that_cannot_be_put_in_place_leaves_what_there_was(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace(tmp_path / "key", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_one_of_many_makers_wins_and_all_know(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: files.create(path, b"%d" % n), range(64)))
    assert sum(made) == 1
    assert path.read_bytes() == b"%d" % made.index(True)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
