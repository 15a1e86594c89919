"""Finds the built page, and serves it from memory."""

import hashlib
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cloudtolocalllm
from cloudtolocalllm.runtime.http1 import Headers, Request
from cloudtolocalllm.runtime.page_fields import SECURITY

HASHED = "/assets/"
"""Files below have their content's hash in their name and never change."""
FOREVER = b"public, max-age=31536000, immutable"
ASK = b"no-cache"
"""Keep it, but ask whether it still holds: the page and the service worker."""
MAX_TOTAL = 64 * 1024 * 1024
"""Bytes of a build that are held in memory."""
PAGE = "/index.html"
_ENCODINGS = ((b"br", ".br"), (b"gzip", ".gz"))

Rewrite = Callable[[bytes], bytes]


def web_root() -> Path | None:
    """Return the folder of the built page: inside the installed package, or the checkout's web/dist; else None."""
    package = Path(cloudtolocalllm.__file__).parent
    for folder in (package / "_web", package.parents[1] / "web" / "dist"):
        if (folder / "index.html").is_file():
            return folder
    return None


@dataclass(frozen=True, slots=True)
class Variant:
    """A file in one content coding."""

    content: bytes
    etag: bytes


@dataclass(frozen=True, slots=True)
class File:
    """A file of the build with its precompressed siblings."""

    type: bytes
    plain: Variant
    encoded: tuple[tuple[bytes, Variant], ...]
    cache: bytes


@dataclass(frozen=True, slots=True)
class StaticAnswer:
    """What to send."""

    status: int
    headers: Headers
    content: bytes


class Site:
    """The files of one build."""

    def __init__(self, root: Path, rewrite: Rewrite | None = None) -> None:
        """Read a build.

        Args:
            root: Its folder.
            rewrite: Changes the page itself, index.html.

        Raises:
            ValueError: It is larger than MAX_TOTAL, so it is hardly one.
            OSError: It cannot be read.
        """
        self._files = _read(root, rewrite)

    def answer(self, request: Request) -> StaticAnswer | None:
        """Return the answer to a GET or HEAD; None when there is no such file.

        A path without a dot in its last segment is a view of the page and gets index.html.
        """
        path = request.path
        file = self._files.get(PAGE if path.endswith("/") else path)
        if file is None and "." not in path.rpartition("/")[2]:
            file = self._files.get(PAGE)
        return None if file is None else _answer(file, request)


def _answer(file: File, request: Request) -> StaticAnswer:
    accepted = _accepted(request.field(b"accept-encoding") or b"")
    coding, variant = next(((c, v) for c, v in file.encoded if c in accepted), (b"", file.plain))
    fields = [(b"etag", variant.etag), (b"cache-control", file.cache), (b"vary", b"Accept-Encoding")]
    known = {tag.strip().removeprefix(b"W/") for tag in (request.field(b"if-none-match") or b"").split(b",")}
    if variant.etag in known or b"*" in known:
        return StaticAnswer(304, (*fields, *SECURITY), b"")
    fields.append((b"content-type", file.type))
    if coding:
        fields.append((b"content-encoding", coding))
    return StaticAnswer(200, (*fields, *SECURITY), variant.content)


def _accepted(field: bytes) -> set[bytes]:
    """Return the codings that an Accept-Encoding field lists and does not rule out (RFC 9110 §12.5.3)."""
    found = set()
    for item in field.lower().split(b","):
        coding, _, weight = item.partition(b";")
        if weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"):
            found.add(coding.strip())
    return found


def _read(root: Path, rewrite: Rewrite | None) -> dict[str, File]:
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    if sum(path.stat().st_size for path in paths) > MAX_TOTAL:
        raise ValueError(f"expected a build of at most {MAX_TOTAL} bytes in {root}")
    contents = {"/" + path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    if rewrite is not None and PAGE in contents:
        contents[PAGE] = rewrite(contents[PAGE])
        for _, suffix in _ENCODINGS:
            contents.pop(PAGE + suffix, None)  # they hold what it was
    return {
        name: File(_type(name), _variant(content), _encoded(name, contents), FOREVER if HASHED in name else ASK)
        for name, content in contents.items()
        if not name.endswith((".br", ".gz"))
    }


def _encoded(name: str, contents: dict[str, bytes]) -> tuple[tuple[bytes, Variant], ...]:
    return tuple(
        (coding, _variant(contents[name + suffix])) for coding, suffix in _ENCODINGS if name + suffix in contents
    )


def _variant(content: bytes) -> Variant:
    return Variant(content, b'"%b"' % hashlib.sha256(content).hexdigest()[:20].encode())


def _type(name: str) -> bytes:
    if name.endswith((".js", ".mjs")):
        return b"text/javascript; charset=utf-8"
    if name.endswith(".webmanifest"):
        return b"application/manifest+json"
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return (guessed + ("; charset=utf-8" if guessed.startswith("text/") else "")).encode()
