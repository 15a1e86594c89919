"""Which requests to the page at home are this machine's person's."""

import pytest

from cloudtolocalllm.bridge.page.door import Credentials, PageDoor
from cloudtolocalllm.bridge.page.server import redirecting, with_mark
from cloudtolocalllm.bridge.page.status import status_of
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus
from cloudtolocalllm.runtime.http1 import Headers

DOOR = PageDoor(8790)
HOST = (b"host", b"127.0.0.1:8790")
OWN = (b"c2l-request", b"key")


@pytest.mark.parametrize("host", [b"127.0.0.1:8790", b"[::1]:8790", b"localhost:8790", b"LOCALHOST:8790"])
def test_the_loopback_by_its_names(host: bytes) -> None:
    DOOR.check_host(((b"host", host),))


NOT_OURS = [
    b"127.0.0.1", b"127.0.0.1:8791", b"127.0.0.1:087900", b"localhost.:8790", b"localhost.evil:8790", b"evil:8790",
    b"127.1:8790", b"[::2]:8790", b"", b"0.0.0.0:8790", b"127.0.0.1:8790:8790",
]  # fmt: skip


@pytest.mark.parametrize("host", NOT_OURS)
def test_no_other_name(host: bytes) -> None:
    with pytest.raises(RefusalError, match=r"127\.0\.0\.1:8790"):
        DOOR.check_host(((b"host", host),))


def test_without_a_host_nothing_is_served() -> None:
    with pytest.raises(RefusalError):
        DOOR.check_host(())


def test_the_usual_port_is_not_named() -> None:
    PageDoor(80).check_host(((b"host", b"localhost"),))
    with pytest.raises(RefusalError):
        PageDoor(80).check_host(((b"host", b"localhost:80"),))


@pytest.mark.parametrize(
    "fields",
    [(), ((b"origin", b"http://127.0.0.1:8790"),), ((b"sec-fetch-site", b"same-origin"),)],
)
def test_this_very_page_may_ask(fields: Headers) -> None:
    DOOR.check_page((HOST, OWN, *fields))


@pytest.mark.parametrize(
    "fields",
    [
        ((b"origin", b"http://127.0.0.1:8791"),),
        ((b"origin", b"http://localhost:8790"),),
        ((b"origin", b"https://127.0.0.1:8790"),),
        ((b"origin", b"null"),),
        ((b"origin", b"http://127.0.0.1:8790"), (b"origin", b"https://evil.example")),
        ((b"sec-fetch-site", b"same-site"),),
        ((b"sec-fetch-site", b"cross-site"),),
        ((b"sec-fetch-site", b"none"),),
    ],
)
def test_no_other_page_may(fields: Headers) -> None:
    with pytest.raises(RefusalError, match="Only this very page"):
        DOOR.check_page((HOST, OWN, *fields))


def test_the_pages_own_field_is_required() -> None:
    with pytest.raises(RefusalError, match="C2L-Request"):
        DOOR.check_page((HOST,))


@pytest.mark.parametrize(
    ("cookies", "found"),
    [
        ((b"c2l-page-8790=one",), "one"),
        ((b"a=b; c2l-page-8790=one; c=d",), "one"),
        ((b"a=b", b"c2l-page-8790=one"), "one"),
        ((b"c2l-page-8791=one",), ""),
        ((b"c2l-page-8790=one; c2l-page-8790=two",), ""),
        ((b"c2l-page-8790=one", b"c2l-page-8790=one"), ""),
        ((), ""),
    ],
)
def test_one_cookie_of_our_port_is_read(cookies: tuple[bytes, ...], found: str) -> None:
    assert DOOR.credentials((OWN, *((b"cookie", value) for value in cookies))) == Credentials(found, "key")


def test_what_is_written_into_a_file_for_a_browser_stays_text() -> None:
    assert "<script" not in redirecting('http://127.0.0.1:1/"><script>')
    assert b"<script" not in with_mark(b"<head>", '"><script>')


@pytest.mark.parametrize(
    ("states", "overall"),
    [((), "engine-down"), (("down",), "engine-down"), (("down", "up"), "ready"), (("up", "loading"), "loading")],
)
def test_the_status_says_what_stands_between(states: tuple[str, ...], overall: str) -> None:
    engines = [EngineStatus(f"e-{n}", EngineKind.OLLAMA, EngineState(state)) for n, state in enumerate(states)]
    status = status_of("Workshop", engines)
    [machine] = status["bridges"]
    assert (status["state"], machine["name"], machine["connected"]) == (overall, "Workshop", True)
    assert [engine["state"] for engine in machine["engines"]] == list(states)
