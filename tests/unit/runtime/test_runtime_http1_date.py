"""The Date field, against the standard library's own."""

from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.runtime.http1.server import _imf_fixdate


@given(st.integers(min_value=0, max_value=253_402_300_799))  # the last second of the year 9999
def test_a_time_is_written_as_the_rfc_has_it(now: int) -> None:
    assert _imf_fixdate(now) == formatdate(now, usegmt=True)
