"""Settings and the credential's file."""

import os
import stat
from pathlib import Path

import pytest

from cloudtolocalllm.bridge.control import websocket_url
from cloudtolocalllm.bridge.pairing import Credential, PairingError
from cloudtolocalllm.bridge.settings import BridgeSettings
from cloudtolocalllm.runtime.settings import SettingsError, describe, load

PREFIX = "C2L_BRIDGE_"
NEEDED = {PREFIX + "SERVER": "https://example.org/", PREFIX + "CREDENTIAL_FILE": "/tmp/c.json"}


def test_defaults() -> None:
    settings = load(BridgeSettings, PREFIX, NEEDED)
    assert settings.server == "https://example.org"
    assert settings.credential_file == Path("/tmp/c.json")
    assert settings.name
    assert (settings.engines, settings.allow, settings.allow_cloud_models) == ((), (), False)
    assert settings.load_grace == 120.0
    assert settings.journal_bytes == 64 * 1024 * 1024
    assert settings.leash_fd is None


def test_values() -> None:
    more = {"ENGINES": "http://a:1, http://b:2/", "ALLOW": "pull,copy", "ENGINE_KEYS": "a:1=k", "LEASH_FD": "7"}
    settings = load(BridgeSettings, PREFIX, {**NEEDED, **{PREFIX + key: value for key, value in more.items()}})
    assert settings.engines == ("http://a:1", "http://b:2")
    assert settings.allow == ("pull", "copy")
    assert settings.engine_keys == ("a:1=k",)
    assert settings.leash_fd == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER", "example.org"),
        ("SERVER", "ws://example.org"),
        ("SERVER", "http://h:99999"),
        ("ENGINES", "http://:secret@"),
        ("ENGINES", "http://h/?secret=1"),
        ("ALLOW", "create"),
        ("ENGINE_KEYS", "secret"),
        ("LOAD_GRACE", "0"),
        ("LOAD_GRACE", "nan"),
        ("CONNECT_TIMEOUT", "soon"),
    ],
)
def test_faults_name_the_setting_and_not_the_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=PREFIX + name) as caught:
        load(BridgeSettings, PREFIX, {**NEEDED, PREFIX + name: value})
    assert "secret" not in str(caught.value)


def test_every_setting_is_described() -> None:
    assert all(setting.help.endswith(".") for setting in describe(BridgeSettings, PREFIX))


def test_the_credential_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "credential.json"
    Credential("br-1", "secret").save(path)
    Credential("br-2", "secret-2").save(path)
    assert Credential.load(path) == Credential("br-2", "secret-2")
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["credential.json"]
    assert "secret" not in repr(Credential.load(path))


@pytest.mark.parametrize(
    "content",
    [None, "", "{}", "[]", '{"bridge_id": "a", "credential": 1}', '{"bridge_id": "a", "credential": "b\\r\\nc"}'],
)
def test_a_broken_credential_file_says_how_to_mend_it(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "credential.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PairingError, match="pair this bridge"):
        Credential.load(path)


def test_websocket_urls() -> None:
    assert websocket_url("https://h", "/ws/bridge") == "wss://h/ws/bridge"
    assert websocket_url("http://u:p@h:8080/base/", "/ws/bridge") == "ws://h:8080/base/ws/bridge"
