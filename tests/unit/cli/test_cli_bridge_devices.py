"""The owner's commands about devices, on a store that no bridge uses and on one that a bridge does."""

import io
import sys
import time
from pathlib import Path

import pytest
from tests.support.home_store import DirectStore
from tests.support.sealed_parts import DEVICE, OTHER_DEVICE

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.gateway.identity import fingerprint_of, load_identity
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.store import devices, offers
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.errors import ConflictError
from cloudtolocalllm.bridge.store.lock import StoreLock
from cloudtolocalllm.cli.main import main
from cloudtolocalllm.sealed.device import device_id, public_point
from cloudtolocalllm.sealed.pairing import read_link

ONE, OTHER = device_id(public_point(DEVICE)), device_id(public_point(OTHER_DEVICE))


@pytest.fixture
def credential(tmp_path: Path) -> Path:
    return paired_with("https://app.example", tmp_path / "app.example-443.json")


def paired_with(server: str, path: Path) -> Path:
    now = time.time()
    BridgeIdentity(server, "br-1", "secret", ProofKey.generate(), now, now + 1000).save(path)
    return path


def run(credential: Path, *arguments: str) -> int:
    return main(["bridge", *arguments, "--data-dir", str(credential.parent)])


def let_in(credential: Path) -> None:
    """Pair one device, and have another wait."""
    store = DirectStore(home_path(credential))
    store.clock.now = time.time()
    store(devices.pair, public_point(DEVICE), "laptop", approved_by="link")
    store(devices.wait, public_point(OTHER_DEVICE), "phone")
    store.close()


def test_a_link_is_printed_and_handed_to_the_bridge(credential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(credential, "pair-device") == 0
    said = capsys.readouterr()
    (line,) = [line.strip() for line in said.out.splitlines() if "https://" in line]
    page, fragment = line.split("#")
    link = read_link(fragment)
    assert (page, link.bridge_id) == ("https://app.example/pair", "br-1")
    assert link.fingerprint == fingerprint_of(load_identity(credential))
    assert "10 minutes" in said.out
    assert "█" in said.out or "▀" in said.out
    assert "does not run" in said.err
    store = DirectStore(home_path(credential))
    store.clock.now = time.time()
    assert [secret for secret, _ in store(offers.take_all)] == [link.secret]
    store.close()


def test_while_a_bridge_runs_nothing_is_said_of_starting_it(
    credential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = StoreLock(home_path(credential))
    held.acquire()
    try:
        assert run(credential, "pair-device") == 0
        assert capsys.readouterr().err == ""
    finally:
        held.release()


def test_devices_are_listed_with_the_words_of_those_that_wait(
    credential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(credential, "devices") == 0
    assert "No device is paired" in capsys.readouterr().out
    let_in(credential)
    assert run(credential, "devices") == 0
    out = capsys.readouterr().out
    assert f"{ONE}  laptop" in out
    assert "WAITS" in out
    (words,) = [line for line in out.splitlines() if "these words" in line]
    assert len(words.partition(":")[2].split()) == 8


def test_no_device_hides_from_the_list_by_its_name(credential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    let_in(credential)
    store = DirectStore(home_path(credential))
    store(devices.rename, ONE, "phone\x1b[2K\x1b[1A\r\u202eno")
    store.close()
    assert run(credential, "devices") == 0
    assert f"{ONE}  phone?[2K?[1A??no" in capsys.readouterr().out


def test_devices_are_renamed_approved_and_removed(credential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    let_in(credential)
    assert run(credential, "devices", "--rename", ONE[:8], "work laptop") == 0
    assert run(credential, "devices", "--approve", OTHER) == 0
    store = DirectStore(home_path(credential))
    store.clock.now = time.time()
    assert {(one.name, one.paired, one.approved_by) for one in store(devices.all_of)} == {
        ("work laptop", True, "link"),
        ("phone", True, "local"),
    }
    assert run(credential, "devices", "--remove", ONE) == 0
    assert [one.id for one in store(devices.all_of)] == [OTHER]
    with pytest.raises(ConflictError, match="not removed"):
        store(devices.pair, public_point(DEVICE), "again", approved_by="link")
    store.close()
    for unknown in ("x", OTHER[:5], ONE, ""):
        assert run(credential, "devices", "--remove", unknown or "?") == 1
    assert "expected the id of a device" in capsys.readouterr().err


def test_a_new_identity_is_an_explicit_act_with_a_warning(
    credential: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in(credential)
    before = fingerprint_of(load_identity(credential))
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))  # no terminal: nobody has read the warning
    assert run(credential, "new-identity") == 1
    said = capsys.readouterr()
    assert "paired anew" in said.out
    assert "nothing was changed" in said.err
    assert fingerprint_of(load_identity(credential)) == before
    assert run(credential, "pair-device") == 0
    assert run(credential, "new-identity", "--yes") == 0
    assert fingerprint_of(load_identity(credential)) != before
    store = DirectStore(home_path(credential))
    store.clock.now = time.time()
    assert store(devices.all_of) == []
    assert store(devices.points) == {}
    assert store(offers.take_all) == [], "expected links of before to be good for nothing"
    assert store(devices.pair, public_point(DEVICE), "laptop", approved_by="link").paired, "its key is good again"
    store.close()


def test_there_is_no_new_identity_while_the_bridge_runs(credential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint_of(load_identity(credential))
    held = StoreLock(home_path(credential))
    held.acquire()
    try:
        assert run(credential, "new-identity", "--yes") == 1
    finally:
        held.release()
    assert "stop it first" in capsys.readouterr().err
    assert fingerprint_of(load_identity(credential)) == before


def test_which_bridge_is_meant(credential: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paired_with("https://other.example", tmp_path / "other.example-443.json")
    assert run(credential, "pair-device") == 1
    assert "several" in capsys.readouterr().err
    assert run(credential, "pair-device", "--server", "https://other.example/") == 0
    assert "https://other.example/pair#" in capsys.readouterr().out
    assert run(tmp_path / "nothing" / "x.json", "devices") == 1
    assert "no bridge that is paired" in capsys.readouterr().err
