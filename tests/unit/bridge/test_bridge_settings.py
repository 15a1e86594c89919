"""Settings and the credential's file."""

from pathlib import Path

import pytest

from cloudtolocalllm.bridge.control import websocket_url
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
    assert (settings.padding_interval, settings.padding_stream_size) == (0.1, 4096)


def test_values() -> None:
    more = {"ENGINES": "http://a:1, http://b:2/", "ALLOW": "pull,copy", "ENGINE_KEYS": "a:1=k", "LEASH_FD": "7"}
    more |= {"PADDING_INTERVAL": "0", "PADDING_STREAM_SIZE": "0"}
    settings = load(BridgeSettings, PREFIX, {**NEEDED, **{PREFIX + key: value for key, value in more.items()}})
    assert settings.engines == ("http://a:1", "http://b:2")
    assert settings.allow == ("pull", "copy")
    assert settings.engine_keys == ("a:1=k",)
    assert settings.leash_fd == 7
    assert (settings.padding_interval, settings.padding_stream_size) == (0.0, 0)


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
        ("PADDING_INTERVAL", "1.5"),
        ("PADDING_INTERVAL", "-1"),
        ("PADDING_INTERVAL", "nan"),
        ("PADDING_STREAM_SIZE", "100"),
        ("PADDING_STREAM_SIZE", "16385"),
        ("PADDING_STREAM_SIZE", "-4096"),
    ],
)
def test_faults_name_the_setting_and_not_the_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=PREFIX + name) as caught:
        load(BridgeSettings, PREFIX, {**NEEDED, PREFIX + name: value})
    assert "secret" not in str(caught.value)


def test_every_setting_is_described() -> None:
    assert all(setting.help.endswith(".") for setting in describe(BridgeSettings, PREFIX))


def test_websocket_urls() -> None:
    assert websocket_url("https://h", "/ws/bridge") == "wss://h/ws/bridge"
    assert websocket_url("http://u:p@h:8080/base/", "/ws/bridge") == "ws://h:8080/base/ws/bridge"
