"""The web build, and how long it may be kept."""

import gzip

import pytest
from tests.contract.edge.test_edge_admission import check_security
from tests.support.edge_doubles import EdgeUnderTest

PAGE = b"<!doctype html><title>page</title>"
ASSET = "/assets/app-1a2b.js"


@pytest.mark.parametrize("target", ["/", "/index.html", "/chat", "/settings/devices?x=y"])
async def test_the_page_and_the_paths_of_the_app(edge: EdgeUnderTest, target: str) -> None:
    answer = await edge.get(target)
    assert (answer.status, answer.body) == (200, PAGE)
    assert (answer.one("content-type") or "").startswith("text/html")
    assert answer.one("cache-control") == "no-cache"
    check_security(answer)


async def test_hashed_files_never_change(edge: EdgeUnderTest) -> None:
    answer = await edge.get(ASSET)
    assert answer.body == b"export {}; " * 20
    assert answer.one("cache-control") == "public, max-age=31536000, immutable"
    assert (answer.one("content-type") or "").startswith("text/javascript")
    assert answer.one("content-encoding") is None
    assert (await edge.get("/sw.js")).one("cache-control") == "no-cache"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip", "gzip"), ("gzip, br", "br"), ("br;q=0, gzip", "gzip"), ("identity", None), ("GZIP;q=0.5", "gzip")],
)
async def test_precompressed_siblings(edge: EdgeUnderTest, accepted: str, coding: str | None) -> None:
    answer = await edge.get(ASSET, f"Accept-Encoding: {accepted}")
    assert answer.one("content-encoding") == coding
    assert (answer.one("vary") or "").lower() == "accept-encoding"
    if coding == "gzip":
        assert gzip.decompress(answer.body) == b"export {}; " * 20


async def test_revalidation(edge: EdgeUnderTest) -> None:
    first = await edge.get("/")
    etag = first.one("etag")
    assert etag
    for field in (etag, f'"other", W/{etag}', "*"):
        answer = await edge.get("/", f"If-None-Match: {field}")
        assert (answer.status, answer.body, answer.one("etag")) == (304, b"", etag)
        check_security(answer)
    assert (await edge.get("/", 'If-None-Match: "other"')).status == 200
    assert (await edge.get(ASSET)).one("etag") != (await edge.get(ASSET, "Accept-Encoding: br")).one("etag")


async def test_head(edge: EdgeUnderTest) -> None:
    answer = await edge.get("/", method="HEAD")
    assert (answer.status, answer.one("content-length"), answer.body) == (200, str(len(PAGE)), b"")


@pytest.mark.parametrize(
    "target", ["/missing.js", "/assets/missing-1.js", "/link.txt", "/.git/config.txt", "/a.b/c.d"]
)
async def test_missing_files_are_missing(edge: EdgeUnderTest, target: str) -> None:
    answer = await edge.get(target)
    assert (answer.status, answer.problem) == (404, "not-found")
    check_security(answer)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods(edge: EdgeUnderTest, method: str) -> None:
    answer = await edge.get("/", "Content-Length: 0", method=method)
    assert (answer.status, answer.problem) == (405, "method-not-allowed")
    check_security(answer)


async def test_health(edge: EdgeUnderTest) -> None:
    answer = await edge.get("/healthz")
    assert answer.status == 200
    assert edge.api.requests == []
    check_security(answer)
