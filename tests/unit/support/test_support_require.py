import pytest
from tests.support.require import require


def test_what_is_there_lets_the_test_run() -> None:
    require(True, "nothing", "do nothing")


def test_what_is_missing_skips_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("C2L_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs nginx: apt-get install nginx-light"):
        require(None, "nginx", "apt-get install nginx-light")


def test_what_is_missing_fails_where_all_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("C2L_REQUIRE", "all")
    with pytest.raises(pytest.fail.Exception, match="needs nginx"):
        require(None, "nginx", "apt-get install nginx-light")
