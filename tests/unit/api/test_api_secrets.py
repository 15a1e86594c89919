import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.secrets import (
    PSEUDONYM_KEY,
    SESSION_KEYS,
    SIGNING_KEYS,
    SecretsError,
    load_pseudonym_key,
    load_sealing_keys,
    load_signing_ring,
    read_token,
)
from cloudtolocalllm.auth.keys import DAY, KeyScope, KeyVerifier, mint_key
from cloudtolocalllm.auth.sessions import Sealer, new_session
from cloudtolocalllm.auth.signing import KeyRing


def test_keys_are_made_once_and_are_the_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "cloud" / "secrets"
    keys = load_sealing_keys(folder)
    assert load_sealing_keys(folder) == keys
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / SESSION_KEYS).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [SESSION_KEYS]


def test_a_key_put_first_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    old = Sealer(load_sealing_keys(tmp_path)).seal(new_session("u", now=100))
    other = load_sealing_keys(tmp_path / "other")
    path = tmp_path / SESSION_KEYS
    sets = [json.loads(p.read_text())["keys"] for p in (tmp_path / "other" / SESSION_KEYS, path)]
    path.write_text(json.dumps({"keys": sets[0] + sets[1]}))
    keys = load_sealing_keys(tmp_path)
    assert keys[0] == other[0]
    assert Sealer(keys).open(old, now=100).user == "u"


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_sealing_keys(tmp_path)
    (tmp_path / SESSION_KEYS).chmod(0o644)
    with pytest.raises(SecretsError, match="0600"):
        load_sealing_keys(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"keys": []}', '{"keys": [{"kid": "a"}]}', '{"keys": [{"kid": "a", "k": "AAAA"}]}', "\x00",
     json.dumps({"keys": [{"kid": "a", "k": "A" * 43}] * 2})],
)  # fmt: skip
def test_a_damaged_file_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / SESSION_KEYS
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SecretsError, match="expected") as caught:
        load_sealing_keys(tmp_path)
    assert "AAAA" not in str(caught.value)


LOADERS = [(SIGNING_KEYS, load_signing_ring), (PSEUDONYM_KEY, load_pseudonym_key), (SESSION_KEYS, load_sealing_keys)]


def test_the_signing_ring_and_the_pseudonym_key_are_made_once_and_are_the_owners_alone(tmp_path: Path) -> None:
    ring, key = load_signing_ring(tmp_path / "secrets"), load_pseudonym_key(tmp_path / "secrets")
    assert load_signing_ring(tmp_path / "secrets").jwks(private=True) == ring.jwks(private=True)
    assert load_pseudonym_key(tmp_path / "secrets") == key
    assert len(key) == 32
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()}
    assert files == {SIGNING_KEYS: 0o600, PSEUDONYM_KEY: 0o600}
    assert load_pseudonym_key(tmp_path / "other") != key


def test_a_signing_key_put_first_signs_and_the_old_one_still_verifies(tmp_path: Path) -> None:
    clock = FakeClock()
    old = load_signing_ring(tmp_path)
    _, text = mint_key(old, user="u_a", scope=KeyScope(), lifetime=DAY, now=clock.now)
    (tmp_path / SIGNING_KEYS).write_text(json.dumps(old.rotated().jwks(private=True)))
    ring = load_signing_ring(tmp_path)
    assert ring.kids[0] != old.kids[0]
    assert KeyVerifier(ring, clock).verify(text) is not None
    (tmp_path / SIGNING_KEYS).write_text(json.dumps(KeyRing.generate().jwks(private=True)))
    assert KeyVerifier(load_signing_ring(tmp_path), clock).verify(text) is None


@pytest.mark.parametrize(("name", "load"), LOADERS)
def test_no_file_of_keys_may_be_readable_by_others(tmp_path: Path, name: str, load: Callable[[Path], object]) -> None:
    load(tmp_path)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(SecretsError, match="0600"):
        load(tmp_path)


@pytest.mark.parametrize(("name", "load"), LOADERS)
@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"keys": []}', '{"keys": [{"kty": "OKP"}]}', "zz" * 32, "ab" * 31]
)
def test_no_damaged_file_of_keys_is_used_or_shown(
    tmp_path: Path, name: str, load: Callable[[Path], object], content: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SecretsError, match="expected") as caught:
        load(tmp_path)
    assert path.read_text() == content, "and it is not replaced"
    assert "zz" not in str(caught.value)
    assert "abab" not in str(caught.value)


def test_processes_that_start_at_once_agree_on_the_owner(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from cloudtolocalllm.api.secrets import load_pseudonym_key, load_signing_ring\n"
        "from cloudtolocalllm.auth.pseudonyms import owner_of\n"
        "print(load_signing_ring(Path(sys.argv[1])).kids, owner_of(load_pseudonym_key(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "secrets")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=30) for process in running]
    assert [process.returncode for process in running] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == {SIGNING_KEYS, PSEUDONYM_KEY}


def test_a_token_is_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(" abc\n")
    assert read_token(path) == "abc"
    for content in ("", "\n", "a\nb", "ä"):
        path.write_text(content)
        with pytest.raises(SecretsError):
            read_token(path)
    with pytest.raises(SecretsError, match="No such file"):
        read_token(tmp_path / "none")
