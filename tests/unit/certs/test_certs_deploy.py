"""A pair is in place whole or not at all, and the stamp comes last."""

import os
from pathlib import Path

import pytest
from tests.support.certs_parts import TestAuthority

from cloudtolocalllm.certs import deploy
from cloudtolocalllm.certs.deploy import DeployError, Folder
from cloudtolocalllm.certs.validate import Facts, Pair, check
from cloudtolocalllm.runtime import files

NOW = 1_800_000_000.0
AUTHORITY = TestAuthority(NOW)


def made() -> tuple[Pair, Facts]:
    pair = AUTHORITY.pair(("example.org",))
    return pair, check(pair, ("example.org",), NOW)


def seen(folder: Path) -> Pair:
    """What nginx reads by the names in its configuration."""
    return Pair((folder / "fullchain.pem").read_bytes(), (folder / "privkey.pem").read_bytes())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_put_is_read_with_its_source(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "example.org")
    assert folder.read() is None
    pair, facts = made()
    folder.put(pair, facts, "own", NOW)
    read = folder.read()
    assert read is not None
    assert (read.pair, read.source) == (pair, "own")
    assert seen(folder.path) == pair
    assert folder.stamped(pair)


def test_nobody_else_reads_the_key(tmp_path: Path) -> None:
    alone, shared = Folder(tmp_path / "a"), Folder(tmp_path / "b", group=os.getgid())
    for folder in (alone, shared):
        folder.put(*made(), "own", NOW)
    assert (mode(alone.path), mode(alone.path / "privkey.pem")) == (0o700, 0o600)
    assert (mode(shared.path), mode(shared.path / "privkey.pem")) == (0o750, 0o640)
    assert (shared.path / "privkey.pem").stat().st_gid == os.getgid()
    assert mode(shared.path / "stamp") == 0o644
    assert "PRIVATE" not in (shared.path / "stamp").read_text()


def test_old_versions_go_but_for_the_last(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "x")
    for n in range(6):
        folder.put(*made(), "own", NOW + n)
    assert len(list((folder.path / "versions").iterdir())) == deploy.VERSIONS_KEPT


@pytest.mark.parametrize("steps", range(1, 14))
def test_a_death_at_any_step_leaves_a_whole_pair(tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write and link of a second `put` fails once, as if the process had died or the disk were full there."""
    folder = Folder(tmp_path / "x")
    old, facts = made()
    folder.put(old, facts, "own", NOW)
    stamp = (folder.path / "stamp").read_text()
    left = steps
    new, new_facts = made()

    def step(real: object) -> object:
        def run(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                raise OSError(28, "No space left on device")
            return real(*args, **options)  # type: ignore[operator] # one of three functions of this module

        return run

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", step(files.replace))
        patch.setattr(files, "sync_folder", step(files.sync_folder))
        patch.setattr(Path, "symlink_to", step(Path.symlink_to))
        said = ""
        try:
            folder.put(new, new_facts, "own", NOW + 1)
        except DeployError as error:
            said = str(error)
    now = seen(folder.path)
    assert now in (old, new)
    if (folder.path / "stamp").read_text() != stamp:
        assert now == new
    if said:
        assert "see that its disk has room" in said
    else:
        assert now == new
    folder.put(new, new_facts, "own", NOW + 2)
    assert seen(folder.path) == new
    assert folder.stamped(new)


def test_a_stamp_that_a_death_left_out_is_told_and_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "x")
    pair, facts = made()
    folder.put(pair, facts, "own", NOW)
    (folder.path / "stamp").unlink()
    assert not folder.stamped(pair)
    folder.stamp(pair, facts)
    assert folder.stamped(pair)


def test_a_folder_that_cannot_be_written_says_what_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeployError, match="give this process's user the folder"):
        Folder(tmp_path / "file" / "x").put(*made(), "own", NOW)


def test_a_version_that_is_gone_counts_as_none(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "x")
    folder.put(*made(), "own", NOW)
    (folder.path / "privkey.pem").resolve().unlink()
    assert folder.read() is None
