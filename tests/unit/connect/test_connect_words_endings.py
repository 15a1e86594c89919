"""When a pairing without a link has come to its end, and how; what a server's list of machines is read as."""

import json
from itertools import product
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloudtolocalllm.connect.homes import MAX_HOMES, Home, Homes
from cloudtolocalllm.connect.machines import MAX_MACHINES, MAX_NAME, Machine, checked_bridge_id, read_machines
from cloudtolocalllm.connect.vault import FileVault
from cloudtolocalllm.connect.words import Answer, Ending, Met, Standing, _is_waiting, decide, pin, sentence
from cloudtolocalllm.runtime.keychain import StorageError
from cloudtolocalllm.sealed.device import device_id, public_point

CASES = list(product([None, *Answer], Standing, [False, True]))


@pytest.mark.parametrize(("answer", "standing", "late"), CASES)
def test_it_is_paired_only_by_both(answer: Answer | None, standing: Standing, late: bool) -> None:
    both = answer is Answer.SAME and standing is Standing.LET_IN
    assert (decide(answer, standing, late=late) is Ending.PAIRED) == both


@pytest.mark.parametrize(("answer", "standing", "late"), CASES)
def test_it_goes_on_only_while_both_may_come(answer: Answer | None, standing: Standing, late: bool) -> None:
    may_come = answer in (None, Answer.SAME) and standing is not Standing.REFUSED
    done = answer is Answer.SAME and standing is Standing.LET_IN
    assert (decide(answer, standing, late=late) is None) == (may_come and not done and not late)


@pytest.mark.parametrize("standing", Standing)
def test_different_words_count_before_all_else(standing: Standing) -> None:
    assert decide(Answer.DIFFERENT, standing, late=True) is Ending.DIFFERENT
    assert decide(Answer.GIVEN_UP, standing, late=True) is Ending.GIVEN_UP


def test_every_ending_says_that_nothing_is_kept() -> None:
    for ending, let_in in product(set(Ending) - {Ending.PAIRED}, (False, True)):
        said = sentence(ending, let_in=let_in, name="laptop")
        assert "Nothing is kept here" in said
        if let_in and ending is not Ending.REFUSED:
            assert "bridge devices --remove ID" in said


@pytest.mark.parametrize(
    ("content", "waits"),
    [
        (b'{"paired":true}', False),
        (b'{"paired":false}', True),
        (b'{"paired":1}', True),
        (b"{}", True),
        (b"[]", True),
        (b"", True),
        (b"[" * 100_000, True),
    ],
)
def test_only_a_clear_yes_is_one(content: bytes, waits: bool) -> None:
    assert _is_waiting(content) is waits


def test_machines_are_read_and_made_harmless() -> None:
    said = [
        {"id": "br-1", "name": "Desk\x1b[2Jtop", "connected": True},
        {"id": "br-2", "name": "x" * 100, "connected": "yes"},
        {"id": "br-3", "name": "\n"},
        {"id": "../br", "name": "no id"},
        {"name": "none"},
        "nothing",
    ]
    assert read_machines(json.dumps({"bridges": said}).encode()) == (
        Machine("br-1", "Desk[2Jtop", True),
        Machine("br-2", "x" * MAX_NAME, False),
        Machine("br-3", "br-3", False),
    )
    many = {"bridges": [{"id": f"br-{n}"} for n in range(1000)]}
    assert len(read_machines(json.dumps(many).encode())) == MAX_MACHINES


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"bridges":{}}', b"[" * 100_000, b"\xff"])
def test_what_is_no_list_of_machines(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # what a JSON parser says is its own
        read_machines(content)


@pytest.mark.parametrize("text", ["", "a/b", "a b", "x" * 65, "ä"])
def test_what_is_no_bridges_id(text: str) -> None:
    with pytest.raises(ValueError, match="--bridge"):
        checked_bridge_id(text)


def met(number: int = 0) -> Met:
    key = ec.generate_private_key(ec.SECP256R1())
    own = device_id(public_point(key))
    return Met(Home("https://app.example.org", f"br-{number}", bytes(32), own, "home"), key, 7)


def test_a_home_that_cannot_be_kept_leaves_no_key(tmp_path: Path) -> None:
    homes, vault = Homes(tmp_path / "homes"), FileVault(tmp_path / "keys")
    for number in range(MAX_HOMES):
        pin(met(number), homes, vault)
    kept = set((tmp_path / "keys").iterdir())
    assert len(kept) == MAX_HOMES
    with pytest.raises(StorageError, match="remove one first"):
        pin(met(MAX_HOMES), homes, vault)
    assert set((tmp_path / "keys").iterdir()) == kept
    again = met(0)
    pin(again, homes, vault)
    assert len(set((tmp_path / "keys").iterdir())) == MAX_HOMES, "expected the former key to be gone"
    assert vault.get(again.home.secret_name) is not None
    assert homes.seen(again.home) == 7
