"""The Origin field: exact, or foreign."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.edge.origins import Origins, Standing, parse_origins
from cloudtolocalllm.runtime.http1 import Request
from cloudtolocalllm.runtime.http1.messages import NO_BODY

ALLOWED = "https://chat.example"


def judged(origin: bytes, host: bytes = b"localhost:8080", scheme: bytes | None = None) -> Standing:
    headers = ((b"host", host), (b"origin", origin))
    request = Request("GET", "/", headers, NO_BODY, "1.1", True, None, False, b"")
    return Origins([ALLOWED]).judge(request, scheme)


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"https?://[a-z0-9.:@\[\]/-]{0,20}")))
@settings(deadline=None)
def test_whatever_comes_only_ours_and_the_named_pass(origin: bytes) -> None:
    expected = {
        ALLOWED.encode(): Standing.ALLOWED,
        b"http://localhost:8080": Standing.OURS,
        b"https://localhost:8080": Standing.OURS,
    }
    assert judged(origin) is expected.get(origin, Standing.FOREIGN)


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "standing"),
    [
        (b"http://localhost:8080", b"localhost:8080", b"https", Standing.FOREIGN),
        (b"https://localhost:8080", b"localhost:8080", b"https", Standing.OURS),
        (b"https://llm.example", b"llm.example", None, Standing.OURS),
        (b"https://llm.example", b"llm.example:443", None, Standing.OURS),
        (b"https://llm.example:443", b"llm.example", None, Standing.OURS),
        (b"https://llm.example", b"llm.example:80", None, Standing.FOREIGN),
        (b"ftp://llm.example", b"llm.example", None, Standing.FOREIGN),
        (b"http://[::1]:8080", b"[::1]:8080", None, Standing.OURS),
        (b"http://[::1]", b"[::1]", None, Standing.OURS),
        (b"http://", b"", None, Standing.FOREIGN),
        (b"http://localhost", b"", None, Standing.FOREIGN),
    ],
)
def test_ours(origin: bytes, host: bytes, scheme: bytes | None, standing: Standing) -> None:
    assert judged(origin, host, scheme) is standing


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example",
        "http://localhost:3000",
        "app://obsidian.md",
        "chrome-extension://abcdef",
        "http://[::1]:8",
    ],
)
def test_origins(text: str) -> None:
    assert parse_origins(f" {text}, {text},") == (text, text)


@pytest.mark.parametrize(
    "text",
    ["*", "null", "https://*.example", "https://a.example/", "https://a.example:443", "http://a.example:80",
     "HTTPS://a.example", "a.example", "https://a.example:0", "https://a.example:65536", "https://u@a.example",
     "https://a.example;https://b.example", "https://\u00e4.example", "https://"],
)  # fmt: skip
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="expected exact origins"):
        parse_origins(text)
