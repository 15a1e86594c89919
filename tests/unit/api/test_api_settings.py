from pathlib import Path

import pytest

from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import SettingsError, describe, load

GIVEN = {
    "C2L_API_LISTEN": "unix:/run/a.sock",
    "C2L_API_DATA_DIR": "/data",
    "C2L_API_MANAGER": "127.0.0.1:9000",
}


def test_what_is_given_is_read_and_the_rest_has_defaults() -> None:
    settings = load(ApiSettings, "C2L_API_", GIVEN)
    assert settings.listen == Endpoint(path="/run/a.sock")
    assert settings.database == Path("/data/state.db")
    assert settings.secrets_dir == Path("/data/secrets")
    assert settings.state == ""
    assert not settings.secure
    assert load(ApiSettings, "C2L_API_", {**GIVEN, "C2L_API_PUBLIC_URL": "https://a.example/"}).secure


@pytest.mark.parametrize(
    "url",
    ["", "a.example", "ftp://a.example", "https://", "https://a/b", "https://u@a", "https://a?x", "https://a:x"],
)
def test_a_strange_public_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="C2L_API_PUBLIC_URL: expected"):
        load(ApiSettings, "C2L_API_", {**GIVEN, "C2L_API_PUBLIC_URL": url})


def test_limits_are_whole_numbers_and_zero_is_none() -> None:
    limits = load(ApiSettings, "C2L_API_", {**GIVEN, "C2L_API_USER_STREAMS": "3"}).user_limits
    assert limits.streams == 3
    assert limits.requests_per_minute > 0
    assert limits.bytes_per_minute > 0
    none = load(ApiSettings, "C2L_API_", {**GIVEN, "C2L_API_USER_STREAMS": "0"}).user_limits
    assert none.streams == 0
    for text in ("-1", "1.5", "x", "", "٣", "9" * 16):
        with pytest.raises(SettingsError, match="C2L_API_USER_STREAMS: expected"):
            load(ApiSettings, "C2L_API_", {**GIVEN, "C2L_API_USER_STREAMS": text})


def test_all_faults_are_told_together() -> None:
    with pytest.raises(SettingsError) as caught:
        load(ApiSettings, "C2L_API_", {"C2L_API_LISTEN": "nowhere", "C2L_API_TYPO": "1"})
    assert len(str(caught.value).splitlines()) == 4


def test_every_setting_is_described() -> None:
    assert all(item.help.endswith(".") for item in describe(ApiSettings, "C2L_API_"))
