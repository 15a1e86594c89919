"""Mozilla's HTTP Observatory: the headers, the redirection and the cookies of each host."""

import pytest
from tests.support.audit_target import APP, DOMAIN, HOST, Target
from tests.support.audit_tools import observatory

pytestmark = [pytest.mark.audit, pytest.mark.slow]
SCORE = 120


@pytest.mark.parametrize("host", [HOST] if HOST else [APP, DOMAIN])
def test_the_observatory_gives_its_best_grade(target: Target, host: str) -> None:
    found = observatory(target, host)
    failed = {name: test["result"] for name, test in found["tests"].items() if not test["pass"]}
    assert failed == {}
    assert found["scan"]["grade"] == "A+"
    assert found["scan"]["score"] >= SCORE
