"""`home backup` and `home restore`."""

from pathlib import Path

import pytest
from tests.support.home_store import DirectStore

from cloudtolocalllm.bridge.store import conversations
from cloudtolocalllm.cli.main import main


def titles(path: Path) -> list[str]:
    store = DirectStore(path)
    found = [c.title for c in store(conversations.page).conversations]
    store.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bridge" / "home.example.org-443.home.db"
    store = DirectStore(path)
    store(conversations.create, "before")
    store.close()
    return path


def test_a_backup_can_be_restored(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data-dir", str(path.parent)]
    assert main(["home", "backup", *data]) == 0
    saved = capsys.readouterr().out.strip()
    assert Path(saved).parent == path.parent / "backups"
    store = DirectStore(path)
    store(conversations.create, "after")
    assert main(["home", "restore", saved, *data]) == 1
    assert "stop the bridge first" in capsys.readouterr().err
    store.close()
    assert main(["home", "restore", saved, *data]) == 0
    assert "-before-restore" in capsys.readouterr().err
    assert titles(path) == ["before"]


def test_a_backup_goes_where_it_is_told_and_replaces_nothing(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["home", "backup", str(tmp_path / "b.db"), "--data-dir", str(path.parent)]
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert "expected no file" in capsys.readouterr().err


def test_without_a_store_or_with_several_it_says_so(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["home", "backup", "--data-dir", str(tmp_path / "none")]) == 1
    assert "expected a home store" in capsys.readouterr().err
    DirectStore(path.with_name("other-443.home.db")).close()
    assert main(["home", "backup", "--data-dir", str(path.parent)]) == 1
    assert "paired with several servers" in capsys.readouterr().err


def test_a_lost_store_is_restored_beside_its_credential(path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "b.db"
    data = ["--data-dir", str(path.parent)]
    assert main(["home", "backup", str(saved), *data]) == 0
    path.unlink()
    path.with_name(path.name + "-wal").write_bytes(b"a log that was left over")
    (path.parent / "home.example.org-443.json").write_text("{}")
    assert main(["home", "restore", str(saved), *data]) == 0
    assert titles(path) == ["before"]
