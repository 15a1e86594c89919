import json
import stat
from pathlib import Path

import pytest

from cloudtolocalllm.api.secrets import SESSION_KEYS, SecretsError, load_sealing_keys, read_token
from cloudtolocalllm.auth.sessions import Sealer, new_session


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
