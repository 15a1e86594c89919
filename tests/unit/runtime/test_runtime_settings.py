from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import SettingsError, describe, load, setting


@dataclass(frozen=True, slots=True)
class Sample:
    api: Endpoint = setting("Where the API listens.", parse=Endpoint.parse)
    name: str = setting("A name.", default="x")
    port: int = setting("A port.", default=80)
    grace: float = setting("Seconds.", default=1.5)
    loud: bool = setting("Whether.", default=False)
    root: Path | None = setting("A folder.", default=None)
    hosts: tuple[str, ...] = setting("Names.", default=())
    at: Endpoint | None = setting("Where else.", default=None, parse=Endpoint.parse)
    most: int | None = setting("At most.", default=7, parse=lambda text: None if text == "off" else int(text))


def test_every_kind_is_read() -> None:
    got = load(
        Sample,
        "S_",
        {
            "S_API": "unix:/run/api",
            "S_NAME": "n",
            "S_PORT": "8080",
            "S_GRACE": "2",
            "S_LOUD": "Yes",
            "S_ROOT": "/srv",
            "S_HOSTS": "a, b,,",
            "OTHER": "ignored",
        },
    )
    assert got == Sample(Endpoint(path="/run/api"), "n", 8080, 2.0, True, Path("/srv"), ("a", "b"))


def test_an_empty_value_leaves_the_default_where_none_may_be() -> None:
    got = load(Sample, "S_", {"S_API": "h:1", "S_ROOT": "", "S_NAME": "", "S_AT": "", "S_MOST": ""})
    assert (got.root, got.name, got.at, got.most) == (None, "", None, 7)
    assert load(Sample, "S_", {"S_API": "h:1", "S_MOST": "off"}).most is None
    with pytest.raises(SettingsError, match="S_PORT: expected a whole number"):
        load(Sample, "S_", {"S_API": "h:1", "S_PORT": ""})


def test_defaults() -> None:
    assert load(Sample, "S_", {"S_API": "h:1"}) == Sample(Endpoint(host="h", port=1))


def test_all_faults_are_reported_together_and_no_value_is_echoed() -> None:
    with pytest.raises(SettingsError) as error:
        load(Sample, "S_", {"S_PORT": "secret1", "S_LOUD": "secret2", "S_TYPO": "secret3", "S_GRACE": "secret4"})
    text = str(error.value)
    assert "S_API is not set: Where the API listens." in text
    assert "S_PORT: expected a whole number" in text
    assert "S_LOUD: expected true or false" in text
    assert "S_GRACE: expected a number" in text
    assert "S_TYPO is not a setting" in text
    assert "secret" not in text


def test_description() -> None:
    by_name = {d.variable: d for d in describe(Sample, "S_")}
    assert by_name["S_API"].default is None
    assert by_name["S_LOUD"].default == "false"
    assert by_name["S_ROOT"].default == ""
    assert by_name["S_PORT"].help == "A port."
