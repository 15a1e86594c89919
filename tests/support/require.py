"""What a test needs of the machine: skipped with a reason when it is missing, or failed where all must be there."""

import os

import pytest


def require(condition: object, what: str, how: str) -> None:
    """Skip the running test unless `condition` holds; fail it under C2L_REQUIRE=all, as continuous integration runs.

    Args:
        condition: Anything; its truth counts.
        what: What is missing, such as "nginx".
        how: How to get it, such as "apt-get install nginx-light".
    """
    if condition:
        return
    text = f"needs {what}: {how}"
    if os.environ.get("C2L_REQUIRE") == "all":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
