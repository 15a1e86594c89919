"""testssl.sh: nothing above LOW."""

import contextlib

import pytest
from tests.support.audit_target import Target
from tests.support.audit_tools import UNMADE, TlsScan, findings

pytestmark = [pytest.mark.audit, pytest.mark.slow, pytest.mark.timeout(600)]
PRIVATE = {"cert_revocation": "a local authority publishes neither a list of what it revoked nor an OCSP responder"}
"""By id, what a certificate for loopback has by nature. DNS (CAA) is not asked for a name that does not exist."""


def test_testssl_finds_nothing_above_low(target: Target, tls_scan: TlsScan) -> None:
    reserved = PRIVATE if target.local else {}
    found = findings(tls_scan.wait(280), reserved)
    if found and all(each.startswith(UNMADE) for each in found):
        # Its own time for a connection is short, and the machine was busy beside it: once more, alone.
        with contextlib.closing(TlsScan(target)) as again:
            found = findings(again.wait(280), reserved)
    assert found == []
