"""Checkpoints against the example in C2SP signed-note, and against every way to be none."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudtolocalllm.audit.checkpoint import Checkpoint, CheckpointError, Signer, Verifier, _parts
from cloudtolocalllm.audit.tree import EMPTY

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
SIGNER = Signer("example.org/api", Ed25519PrivateKey.from_private_bytes(bytes(32)))


def test_the_specifications_key_and_signature_hold() -> None:
    verifier = Verifier.parse(VKEY)
    assert str(verifier) == VKEY
    assert verifier.id.hex() == "530d903a"
    text, ((name, signature),) = _parts(NOTE)
    assert (text, name, signature[:4]) == ("This is an example message.\n", "example.com/foo", verifier.id)
    verifier._key.verify(signature[4:], text.encode())
    with pytest.raises(CheckpointError, match="expected origin"):
        verifier.open(NOTE)


def test_a_checkpoint_goes_through() -> None:
    note = SIGNER.sign(20852163, EMPTY)
    lines = note.split("\n")
    assert lines[:4] == ["example.org/api", "20852163", base64.b64encode(EMPTY).decode(), ""]
    assert lines[4].startswith("\u2014 example.org/api ")
    assert Verifier.parse(str(SIGNER.verifier)).open(note) == Checkpoint("example.org/api", 20852163, EMPTY)


def test_foreign_signatures_beside_ours_are_ignored() -> None:
    note = SIGNER.sign(1, EMPTY) + f"\u2014 witness.example/w1 {base64.b64encode(b'x' * 76).decode()}\n"
    assert SIGNER.verifier.open(note).size == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n7\n", "\n8\n"),
        ("\n7\n", "\n07\n"),
        ("\n7\n", "\n-7\n"),
        ("example.org/api\n", "example.org/other\n"),
        ("\u2014 example.org/api", "\u2014 example.org/other"),
        ("\u2014 ", "- "),
        ("\n\n", "\n"),
        ("\n\n", "\nextra\n\n"),
        ("=\n\n", "=\r\n\n"),
        ("=\n\n", "\n\n"),
    ],
)
def test_any_change_is_noticed(old: str, new: str) -> None:
    note = SIGNER.sign(7, EMPTY)
    changed = note.replace(old, new, 1)
    assert changed != note
    with pytest.raises(CheckpointError):
        SIGNER.verifier.open(changed)


def test_another_key_and_another_origin_do_not_do() -> None:
    other = Signer("example.org/api", Ed25519PrivateKey.generate())
    with pytest.raises(CheckpointError, match="not signed"):
        SIGNER.verifier.open(other.sign(1, EMPTY))
    forged = Signer("example.org/api", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    text = Checkpoint("example.org/edge", 1, EMPTY).text()
    signature = base64.b64encode(forged.verifier.id + forged._key.sign(text.encode())).decode()
    with pytest.raises(CheckpointError, match="another log"):
        SIGNER.verifier.open(f"{text}\n\u2014 example.org/api {signature}\n")


@pytest.mark.parametrize("note", ["", "\n", "a\n\n", "\n\n\n", "a\nb\nc\n\n\u2014 x !!!\n", "x" * 20000])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(CheckpointError):
        SIGNER.verifier.open(note)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a+b",
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("+AekyeRrm", "+AukyeRrm"),
        VKEY[:-4],
        "a b+1+AQ==",
    ],
)
def test_a_key_that_is_none_is_refused(vkey: str) -> None:
    with pytest.raises(ValueError, match="expected a verifier key"):
        Verifier.parse(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "\u00e4", "x" * 201])
def test_a_name_that_cannot_stand_in_a_note_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a log's name"):
        Verifier(name, Ed25519PrivateKey.generate().public_key())
