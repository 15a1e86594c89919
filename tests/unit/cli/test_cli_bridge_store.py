"""`bridge encrypt-store`, `decrypt-store`, `change-store-key`."""

import time
from pathlib import Path

import pytest
from tests.support.home_store import DirectStore

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.store import conversations
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.lock import StoreLock
from cloudtolocalllm.cli.main import main

NEEDLE = b"marmalade"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    credential, now = tmp_path / "bridge" / "app.example-443.json", time.time()
    credential.parent.mkdir()
    BridgeIdentity("https://app.example", "br-1", "secret", ProofKey.generate(), now, now + 1000).save(credential)
    made = DirectStore(home_path(credential))
    made(conversations.create, "marmalade")
    made.close()
    return made.path


def run(store: Path, *arguments: str) -> int:
    return main(["bridge", *arguments, "--data-dir", str(store.parent)])


def test_there_and_back(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = f"file:{tmp_path / 'one'}", f"file:{tmp_path / 'two'}"
    assert main(["home", "backup", "--data-dir", str(store.parent)]) == 0
    saved = capsys.readouterr().out.strip()
    assert run(store, "encrypt-store", "--key", one) == 0
    said = capsys.readouterr().out
    assert f"is encrypted; its key is in {one}" in said
    assert "keep a copy elsewhere" in said
    assert f"NOT encrypted; delete them, or move them to where only you can read them:\n  {saved}" in said
    assert (tmp_path / "one").read_text().strip() not in said
    assert NEEDLE not in store.read_bytes()
    assert run(store, "change-store-key", "--key", two) == 0
    assert f"Earlier back-ups need the key in {one}" in capsys.readouterr().out
    assert run(store, "decrypt-store") == 0
    assert "is in the clear" in capsys.readouterr().out
    assert NEEDLE in store.read_bytes()


def test_a_key_at_another_place_is_told_to_be_set(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(store, "encrypt-store", "--key", f"file:{one}") == 0
    one.rename(two)
    assert run(store, "devices") == 1
    assert "expected the home store's key in" in capsys.readouterr().err
    monkeypatch.setenv("C2L_BRIDGE_STORE_KEY", f"file:{two}")
    assert run(store, "devices") == 0
    assert run(store, "decrypt-store") == 0
    assert "unset it" in capsys.readouterr().out


def test_not_beside_a_bridge_that_runs(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = StoreLock(store)
    lock.acquire()
    assert run(store, "encrypt-store", "--key", f"file:{tmp_path / 'one'}") == 1
    assert "stop it first" in capsys.readouterr().err
    lock.release()
    assert NEEDLE in store.read_bytes()
    assert not (tmp_path / "one").exists()


def test_a_place_that_is_none(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(store, "encrypt-store", "--key", "somewhere")
    assert "expected keyring, or file:" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(store, "encrypt-store")


def test_a_relative_path_is_noted_whole(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(store, "encrypt-store", "--key", "file:one") == 0
    monkeypatch.chdir("/")
    assert run(store, "devices") == 0
