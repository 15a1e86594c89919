import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.api.browser import AmbiguousError, cookie_of, cross_site_fault, fields_of, session_fault

HOST = b"app.example.org"


@pytest.mark.parametrize(
    "name",
    [b"authorization", b"dpop", b"x-api-key", b"origin", b"sec-fetch-site", b"host", b"x-original-uri", b"c2l-fresh"],
)
def test_a_deciding_field_may_not_come_twice_even_with_the_same_value(name: bytes) -> None:
    with pytest.raises(AmbiguousError, match=name.decode()):
        fields_of([(name, b"a"), (b"accept", b"b"), (name, b"a")])


def test_other_fields_may_come_twice_and_cookies_are_joined() -> None:
    fields = fields_of([(b"accept", b"a"), (b"accept", b"b"), (b"cookie", b"x=1"), (b"cookie", b"y=2")])
    assert fields == {b"accept": b"b", b"cookie": b"x=1; y=2"}


def test_a_cookie_is_found_by_its_whole_name() -> None:
    fields = {b"cookie": b"xc2l_session=1; c2l_session2=2;c2l_session=3; flag; other=a=b"}
    assert cookie_of(fields, "c2l_session") == "3"
    assert cookie_of(fields, "other") == "a=b"
    assert cookie_of(fields, "flag") is None
    assert cookie_of({}, "c2l_session") is None


@pytest.mark.parametrize("line", [b"c2l_session=1; c2l_session=1", b"c2l_session=1;a=2;c2l_session="])
def test_two_session_cookies_are_ambiguous(line: bytes) -> None:
    with pytest.raises(AmbiguousError, match="one session cookie"):
        cookie_of({b"cookie": line}, "c2l_session")


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("https", b"app.example.org", b"https://app.example.org"),
        ("https", b"app.example.org:443", b"https://app.example.org"),
        ("https", b"app.example.org", b"https://APP.example.org:443"),
        ("http", b"127.0.0.1:8080", b"http://127.0.0.1:8080"),
        ("http", b"localhost:8080", b"http://localhost:8080"),
        ("http", b"[::1]:8080", b"http://[::1]:8080"),
        ("http", b"localhost", b"http://localhost:80"),
    ],
)
def test_our_own_origin_is_believed(scheme: str, host: bytes, origin: bytes) -> None:
    assert cross_site_fault({b"origin": origin}, host=host, scheme=scheme) is None


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"",
        b"https://evil.example",
        b"https://example.org",
        b"https://app.example.org.evil.example",
        b"https://app.example.org@evil.example",
        b"https://evil.example#app.example.org",
        b"https://evil.example/app.example.org",
        b"https://app.example.org:8443",
        b"http://app.example.org",
        b"//app.example.org",
        b"app.example.org",
        b"https://app.example.org:x",
        b"https://[::1",
        b"https://app.example.org/",
        b"\xff\xfe",
    ],
)
def test_another_origin_is_not(origin: bytes) -> None:
    assert cross_site_fault({b"origin": origin}, host=HOST, scheme="https") is not None


def test_an_origin_is_not_compared_with_an_empty_host() -> None:
    for host in (b"", b"@", b"a/b", b"[::1"):
        assert cross_site_fault({b"origin": b"https://"}, host=host, scheme="https") is not None


@pytest.mark.parametrize(
    ("site", "ours"),
    [
        (b"same-origin", True),
        (b"none", True),
        (b"same-site", False),
        (b"cross-site", False),
        (b"", False),
        (b"Same-Origin, none", False),
    ],
)
def test_fetch_metadata_decides(site: bytes, ours: bool) -> None:
    assert (cross_site_fault({b"sec-fetch-site": site}, host=HOST, scheme="https") is None) is ours


def test_both_are_asked() -> None:
    fields = {b"sec-fetch-site": b"same-origin", b"origin": b"https://evil.example"}
    assert cross_site_fault(fields, host=HOST, scheme="https") is not None


def test_a_session_needs_the_marking_field_too() -> None:
    fault = session_fault({}, host=HOST, scheme="https")
    assert fault is not None
    assert "c2l-request" in fault
    assert session_fault({b"c2l-request": b""}, host=HOST, scheme="https") is None
    assert session_fault({b"c2l-request": b"1", b"origin": b"null"}, host=HOST, scheme="https") is not None


@settings(max_examples=200)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_garbage_never_crashes_and_is_never_ours(origin: bytes, host: bytes) -> None:
    assert cross_site_fault({b"origin": b"https://e.example" + origin}, host=host, scheme="http") is not None
    cross_site_fault({b"origin": origin}, host=host, scheme="https")
    cross_site_fault({b"origin": b"https://" + origin}, host=host, scheme="https")
