"""sslyze: protocols, ciphers, curves, certificate and known holes, against Mozilla's guidelines."""

import pytest
from tests.support.audit_target import Target
from tests.support.audit_tools import sslyze

pytestmark = [pytest.mark.audit, pytest.mark.slow, pytest.mark.timeout(180)]


def test_it_complies_with_mozillas_intermediate_profile(target: Target) -> None:
    # Nothing is reserved: the root of the local authority is trusted for the scan, as a user would trust it.
    status, said = sslyze(target, "intermediate")
    assert said.count("OK - Compliant") == len(target.hosts), said[-3000:]
    assert status == 0


def test_the_scan_can_tell(target: Target) -> None:
    status, said = sslyze(target, "modern")  # TLS 1.3 only, which leaves people out
    assert status == 1
    assert "tls_versions: TLS versions {'TLSv1.2'} are supported, but should be rejected." in said
