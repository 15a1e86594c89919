"""The page's files: validators, codings, views, and that no path leads out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.edge.headers import SECURITY
from cloudtolocalllm.runtime import site as static
from cloudtolocalllm.runtime.http1 import Request
from cloudtolocalllm.runtime.http1.messages import NO_BODY
from cloudtolocalllm.runtime.site import ASK, FOREVER, Site, StaticAnswer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("build")
    (root / "assets").mkdir()
    (root / "index.html").write_bytes(b"<page>")
    (root / "index.html.gz").write_bytes(b"gz-page")
    (root / "assets/app-1a2b.js").write_bytes(b"plain")
    (root / "assets/app-1a2b.js.br").write_bytes(b"brotli")
    (root / "assets/app-1a2b.js.gz").write_bytes(b"gzip")
    (root / "app.webmanifest").write_bytes(b"{}")
    (root.parent / "secret.txt").write_bytes(b"SECRET")
    (root / "linked.txt").symlink_to(root.parent / "secret.txt")
    (root / "folder").symlink_to(root.parent)
    return Site(root)


def get(site: Site, target: str, **fields: str) -> StaticAnswer | None:
    sent = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in fields.items())
    return site.answer(Request("GET", target, sent, NO_BODY, "1.1", True, None, False, b""))


def got(site: Site, target: str, **fields: str) -> StaticAnswer:
    answer = get(site, target, **fields)
    assert answer is not None
    return answer


def field(answer: StaticAnswer, name: bytes) -> bytes | None:
    found = [value for key, value in answer.headers if key == name]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("target", ["/", "/index.html", "/chat", "/chat/1", "/settings/", "/?x=/../y"])
def test_views_are_the_page(site: Site, target: str) -> None:
    answer = got(site, target)
    assert (answer.status, answer.content) == (200, b"<page>")
    assert field(answer, b"cache-control") == ASK
    assert field(answer, b"content-type") == b"text/html; charset=utf-8"


@pytest.mark.parametrize("target", ["/missing.js", "/assets/gone-1234.css", "/favicon.ico", "/chat/x.png"])
def test_a_missing_file_is_not_the_page(site: Site, target: str) -> None:
    assert get(site, target) is None


@pytest.mark.parametrize(
    ("accepted", "coding", "content"),
    [
        ("", None, b"plain"),
        ("gzip", b"gzip", b"gzip"),
        ("br", b"br", b"brotli"),
        ("gzip, br", b"br", b"brotli"),
        ("GZIP ; q=0.5, deflate", b"gzip", b"gzip"),
        ("br;q=0, gzip", b"gzip", b"gzip"),
        ("br; q=0.000, gzip;q = 0.0", None, b"plain"),
        ("identity", None, b"plain"),
        ("zstd, xbr, brx", None, b"plain"),
    ],
)
def test_codings(site: Site, accepted: str, coding: bytes | None, content: bytes) -> None:
    answer = got(site, "/assets/app-1a2b.js", accept_encoding=accepted)
    assert (field(answer, b"content-encoding"), answer.content) == (coding, content)
    assert field(answer, b"vary") == b"Accept-Encoding"
    assert field(answer, b"cache-control") == FOREVER
    assert field(answer, b"content-type") == b"text/javascript; charset=utf-8"


def test_each_coding_has_a_validator_of_its_own(site: Site) -> None:
    tags = {field(got(site, "/assets/app-1a2b.js", accept_encoding=coding), b"etag") for coding in ("", "gzip", "br")}
    assert len(tags) == 3


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"a",W/{} ,"b"', "*"])
def test_a_known_validator_gives_304(site: Site, form: str) -> None:
    tag = (field(got(site, "/"), b"etag") or b"").decode()
    answer = got(site, "/", if_none_match=form.format(tag))
    assert (answer.status, answer.content) == (304, b"")
    assert field(answer, b"etag") == tag.encode()
    assert field(answer, b"content-type") is None
    for name, value in SECURITY:
        assert field(answer, name) == value


@pytest.mark.parametrize("sent", ['"other"', "nonsense", "", '""'])
def test_another_validator_gives_the_content(site: Site, sent: str) -> None:
    assert got(site, "/", if_none_match=sent).status == 200


def test_a_validator_of_another_coding_is_another(site: Site) -> None:
    tag = (field(got(site, "/", accept_encoding="gzip"), b"etag") or b"").decode()
    assert got(site, "/", if_none_match=tag).status == 200


def test_types(site: Site) -> None:
    assert field(got(site, "/app.webmanifest"), b"content-type") == b"application/manifest+json"


segments = st.sampled_from(["..", ".", "secret.txt", "folder", "linked.txt", "assets", "", "%2e%2e", "\\", "\0", "a"])


@given(st.lists(segments, max_size=6))
def test_no_path_leads_out_of_the_build(site: Site, parts: list[str]) -> None:
    answer = get(site, "/" + "/".join(parts))
    assert answer is None or b"SECRET" not in answer.content


@pytest.mark.parametrize("target", ["/linked.txt", "/folder/secret.txt", "/../secret.txt", "/assets/app-1a2b.js.br"])
def test_links_and_siblings_are_no_files(site: Site, target: str) -> None:
    assert get(site, target) is None


def test_what_is_too_large_is_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "MAX_TOTAL", 10)
    (tmp_path / "index.html").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        Site(tmp_path)


def test_a_build_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(b"first")
    site = Site(tmp_path)
    (tmp_path / "index.html").write_bytes(b"second")
    assert got(site, "/").content == b"first"
