"""A proxy in a container of its own: its key, its log, and what its image holds."""

import logging
import os
import re
from pathlib import Path

import grimp
import pytest

from cloudtolocalllm.proxy.__main__ import MAX_KEY_LINE, LossyHandler, with_key

ROOT = Path(__file__).resolve().parents[3]
IMAGE = ROOT / "deploy" / "images" / "streaming-proxy"


def test_the_key_is_one_line_of_standard_input() -> None:
    read, write = os.pipe()
    os.write(write, b"ab" * 32 + b"\nmore")
    os.close(write)
    assert with_key({"X": "y"}, read)["C2L_PROXY_KEY"].startswith("ab" * 32)
    os.close(read)


@pytest.mark.parametrize("content", [b"", b"x" * 10_000])
def test_a_key_that_is_missing_or_endless_is_no_wait_without_end(content: bytes) -> None:
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    assert len(with_key({}, read)["C2L_PROXY_KEY"]) <= MAX_KEY_LINE
    os.close(read)


def test_a_key_of_the_environment_counts() -> None:
    assert with_key({"C2L_PROXY_KEY": "k"}, -1)["C2L_PROXY_KEY"] == "k"


def test_a_log_that_nobody_reads_does_not_stop_the_proxy() -> None:
    read, write = os.pipe()
    handler = LossyHandler(write)
    record = logging.makeLogRecord({"msg": "x" * 500})
    for _ in range(500):  # a pipe takes 64 KiB; a write that waits would end this test by its timeout
        handler.emit(record)
    assert os.read(read, 100).startswith(b'{"time"')
    os.close(read)
    handler.emit(record)  # and nobody there at all is no error either
    os.close(write)


def test_the_image_holds_what_the_proxy_imports_and_no_more() -> None:
    graph = grimp.build_graph("cloudtolocalllm")
    needed = {
        module
        for one in ("cloudtolocalllm.proxy", *graph.find_descendants("cloudtolocalllm.proxy"))
        for module in graph.find_upstream_modules(one)
    }
    text = (IMAGE / "Dockerfile").read_text()
    copied = set()
    for path in re.findall(r"src/(cloudtolocalllm/\S+)", text):
        copied.add(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    rooms = {".".join(module.split(".")[:2]) for module in needed}
    assert rooms == {".".join(module.split(".")[:2]) for module in copied if "." in module}
    missing = {m for m in needed if not any(m == one or m.startswith(one + ".") for one in copied)}
    assert missing == set()
