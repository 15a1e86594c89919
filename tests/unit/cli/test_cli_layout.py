import os
import stat
from pathlib import Path

import pytest

from cloudtolocalllm.cli.layout import MAX_RUN_DIR, Layout, default_data_dir, write_private
from cloudtolocalllm.cli.lock import AlreadyRunningError, Lock, is_held, read_running
from cloudtolocalllm.cli.main import main


def test_the_socket_folder_is_inside_a_short_data_directory() -> None:
    assert Layout(Path("/short")).run == Path("/short/run")


def test_the_socket_folder_of_a_long_data_directory_is_elsewhere_and_always_the_same() -> None:
    root = Path("/" + "long/" * 30)
    run = Layout(root).run
    assert len(os.fsencode(run)) <= MAX_RUN_DIR
    assert run == Layout(root).run
    assert run != Layout(root / "other").run


def test_folders_are_private(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.make()
    for folder in (layout.root, layout.cloud, layout.run, layout.log.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_private_file_is_private(tmp_path: Path) -> None:
    write_private(tmp_path / "a" / "key", "secret")
    assert stat.S_IMODE((tmp_path / "a" / "key").stat().st_mode) == 0o600


def test_data_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert default_data_dir({"XDG_DATA_HOME": "/x"}) == Path("/x/cloudtolocalllm")
    assert default_data_dir({}) == Path.home() / ".local" / "share" / "cloudtolocalllm"


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = Lock(layout)
    first.acquire()
    first.tell("http://127.0.0.1:8080")
    assert is_held(layout.lock)
    with pytest.raises(AlreadyRunningError, match=rf"process {os.getpid()} \(http://127.0.0.1:8080\)"):
        Lock(layout).acquire()
    first.release()
    assert not is_held(layout.lock)
    assert read_running(layout.lock) is None
    Lock(layout).acquire()


@pytest.mark.parametrize("arguments", [[], ["up", "--demo", "--no-demo"], ["keys"], ["nonsense"]])
def test_a_wrong_command_line_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: cloudtolocalllm" in capsys.readouterr().err


def test_keys_work_without_a_running_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data-dir", str(tmp_path / "data")]
    assert main(["keys", "create", "laptop", *where]) == 0
    made = capsys.readouterr()
    key, id_ = made.out.strip(), made.err.split()[1]
    assert key.startswith("c2l_")
    assert main(["keys", "list", *where]) == 0
    listed = capsys.readouterr().out
    assert id_ in listed
    assert "laptop" in listed
    assert key not in listed
    assert main(["keys", "delete", id_, *where]) == 0
    assert main(["keys", "delete", id_, *where]) == 0
    assert main(["keys", "delete", "another", *where]) == 1
    assert main(["sign-in-link", *where]) == 1
    assert main(["status", *where]) == 3


def test_a_part_without_its_settings_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["api"]) == 2
    text = capsys.readouterr().err
    assert "C2L_API_LISTEN is not set" in text
    assert "C2L_API_DATA_DIR is not set" in text
