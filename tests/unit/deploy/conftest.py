"""A server to install on."""

from pathlib import Path

import pytest
from tests.support.install_machine import Machine, made_machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return made_machine(tmp_path)
