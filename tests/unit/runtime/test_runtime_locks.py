"""A lock is one holder's, and the next one's when that closes it."""

import os
from pathlib import Path

import pytest
from tests.support.descriptors import descriptors

from cloudtolocalllm.runtime import locks


def test_a_second_one_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.held(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(locks.HeldError, match=str(path)):
            locks.take(path)
    os.close(locks.take(path))


def test_a_fault_inside_lets_go_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locks.held(tmp_path / "lock"):
        raise ZeroDivisionError
    os.close(locks.take(tmp_path / "lock"))


def test_a_refusal_leaves_no_descriptor(tmp_path: Path) -> None:
    with locks.held(tmp_path / "lock"):
        before = descriptors()
        for _ in range(3):
            with pytest.raises(locks.HeldError):
                locks.take(tmp_path / "lock")
        assert descriptors() == before


def test_where_no_file_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locks.take(tmp_path / "none" / "lock")
