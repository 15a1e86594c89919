import pytest

from cloudtolocalllm.demo.settings import PREFIX, DemoSettings, Pace
from cloudtolocalllm.runtime.settings import SettingsError, load


def test_settings_are_read_from_the_environment() -> None:
    settings = load(DemoSettings, PREFIX, {"C2L_DEMO_PORT": "0", "C2L_DEMO_MODELS": "demo, big:7b"})
    assert (settings.port, settings.models) == (0, ("demo", "big:7b"))


def test_the_pace_of_the_settings_is_the_default_pace() -> None:
    assert DemoSettings().pace == Pace()


def test_options_override_the_pace_of_one_request() -> None:
    pace = Pace().overridden({"demo_tokens_per_second": 100, "demo_timestamps": True, "temperature": 0.7})
    assert pace == Pace(tokens_per_second=100.0, timestamps=True)


@pytest.mark.parametrize(
    "options",
    [{"demo_tokens": "many"}, {"demo_timestamps": 1}, {"demo_tokens_per_second": True}, {"demo_tokens": []}],
)
def test_an_option_of_the_wrong_type_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"expected option {next(iter(options))} to be a"):
        Pace().overridden(options)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="C2L_DEMO_PROT is not a setting"):
        load(DemoSettings, PREFIX, {"C2L_DEMO_PROT": "1"})
