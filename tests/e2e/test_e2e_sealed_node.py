"""Node as a third implementation of the sealed format: the page's client in Node's WebCrypto, before the platform."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from tests.support.engines import ROOT
from tests.support.require import require
from tests.support.stack import Stack

WEB = ROOT / "web"
RUNNER = WEB / "node_modules" / "vitest" / "vitest.mjs"
NAME = "Node 🟢"


def bridge(stack: Stack, *arguments: str) -> str:
    full = [sys.executable, "-m", "cloudtolocalllm", "bridge", *arguments]
    folder = str(stack.data_dir / "bridge")
    return subprocess.run(
        [*full, "--data-dir", folder], capture_output=True, text=True, timeout=40, check=True
    ).stdout


@pytest.mark.timeout(240)
def test_node_pairs_chats_and_takes_an_answer_up_again(paced_stack: Stack) -> None:
    node = shutil.which("node")
    require(node is not None and RUNNER.exists(), "Node and the page's packages", "make install")
    found = re.search(r"/pair#(\S+)", bridge(paced_stack, "pair-device"))
    assert found is not None
    live = {"url": paced_stack.url, "headers": paced_stack.headers, "link": found.group(1), "name": NAME}
    done = subprocess.run(
        [str(node), str(RUNNER), "run", "tests/live/node.test.ts"],
        cwd=WEB, env={**os.environ, "C2L_LIVE": json.dumps(live)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"Tests\s+1 passed", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)), done.stdout
    assert NAME in bridge(paced_stack, "devices")
