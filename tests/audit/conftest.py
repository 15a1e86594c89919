"""What is examined, started once."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.audit_target import Target, given_target, running_target
from tests.support.audit_tools import TlsScan
from tests.support.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The platform with the engine of the demonstration."""
    with tempfile.TemporaryDirectory(prefix="c2l-audit-") as folder, running_stack(Path(folder) / "data") as found:
        yield found


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """What the scanners look at: the host that was named, or a platform behind nginx."""
    given = given_target()
    if given is not None:
        yield given
        return
    with running_target(request.getfixturevalue("stack")) as found:
        yield found


@pytest.fixture(scope="session")
def tls_scan(target: Target) -> Iterator[TlsScan]:
    """testssl.sh, under way since the first test."""
    with contextlib.closing(TlsScan(target)) as scan:
        yield scan


@pytest.fixture(scope="session", autouse=True)
def beside(request: pytest.FixtureRequest) -> None:
    """Start what takes long before the first test, if any of the tests is to read it."""
    if any("tls_scan" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("tls_scan")
