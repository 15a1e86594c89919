"""Engines as processes: the real llama.cpp server, Ollama's API in front of it, and the demo engine."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.gguf_model import TINY, ModelSpec, model_file
from tests.support.ports import free_port
from tests.support.require import require

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 30.0
MODEL = "tiny"
"""What the real engine calls its model; the stand-in calls it tiny:latest."""


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A running engine."""

    url: str
    pid: int
    text: str = ""
    """What it answers, when that is known."""


def require_real_engine() -> None:
    """Skip, or fail under C2L_REQUIRE=all, where the real engine is not installed."""
    for package in ("xllamacpp", "gguf", "numpy"):
        require(importlib.util.find_spec(package), f"PyPI {package}", "pip install -r requirements/dev.lock")


@contextlib.contextmanager
def llama_server(spec: ModelSpec = TINY, *, slots: int = 4, api_key: str = "") -> Iterator[EngineProcess]:
    """Run the real llama.cpp server with a made model; skip where it is not installed.

    Args:
        spec: The model.
        slots: Answers at once; each has the model's whole context.
        api_key: "" for none.
    """
    require_real_engine()
    port = free_port()
    command = [sys.executable, str(ROOT / "tests/support/llama_server.py"), str(model_file(spec))]
    command += ["--port", str(port), "--slots", str(slots), "--context", str(spec.context * slots)]
    command += ["--api-key", api_key] if api_key else []
    with _process(command, f"http://127.0.0.1:{port}", "/health") as pid:
        yield EngineProcess(f"http://127.0.0.1:{port}", pid, " " + " ".join(spec.words))


@contextlib.contextmanager
def ollama_standin(engine: EngineProcess, *, pace: float = 0, **settings: object) -> Iterator[EngineProcess]:
    """Run Ollama's API in front of a real engine: its tokens, with the loading and the faults of `DemoSettings`.

    Args:
        engine: The real one.
        pace: Tokens a second at most; 0 for as fast as it is.
        settings: Of `DemoSettings`.
    """
    command = [sys.executable, "-m", "tests.support.standin", engine.url, str(pace)]
    with _demo(command, {"models": f"{MODEL}:latest", **settings}) as process:
        yield EngineProcess(process.url, process.pid, engine.text)


@contextlib.contextmanager
def demo_engine(**settings: object) -> Iterator[EngineProcess]:
    """Run the scripted demo engine with some of `DemoSettings`."""
    with _demo([sys.executable, "-m", "cloudtolocalllm.demo"], settings) as process:
        yield process


@contextlib.contextmanager
def _demo(command: list[str], settings: Mapping[str, object]) -> Iterator[EngineProcess]:
    port = int(str(settings.get("port") or free_port()))
    values = {**settings, "port": port, "leash_fd": 0}  # 0: stdin, whose other end this process holds
    environ = {f"C2L_DEMO_{name.upper()}": str(value) for name, value in values.items()}
    with _process(command, f"http://127.0.0.1:{port}", "/api/version", environ) as pid:
        yield EngineProcess(f"http://127.0.0.1:{port}", pid)


@contextlib.contextmanager
def _process(command: list[str], url: str, probe: str, environ: Mapping[str, str] | None = None) -> Iterator[int]:
    environment = {**os.environ, **(environ or {})}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
    try:
        _wait_until_ready(process, url + probe)
        yield process.pid
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)  # a test may have stopped it
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"expected an engine at {url}, but its process ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
            if response.status == 200:
                return
        time.sleep(0.02)
    raise RuntimeError(f"expected an engine at {url} within {START_TIMEOUT} s")


def get_json(url: str) -> Any:
    """Return what a URL answers."""
    with urllib.request.urlopen(url, timeout=5) as response:
        return json.load(response)


def busy_slots(url: str) -> int:
    """Return how many answers the real engine is making."""
    return sum(1 for slot in get_json(url + "/slots") if slot["is_processing"])


def slots_idle(url: str, *, within: float = 1.0) -> float | None:
    """Wait until the real engine makes no answer.

    Returns:
        Seconds it took; None if it still made one after `within` seconds.
    """
    began = time.monotonic()
    while (passed := time.monotonic() - began) <= within:
        if busy_slots(url) == 0:
            return passed
        time.sleep(0.005)
    return None


def demo_stats(url: str) -> dict[str, int]:
    """Return what the demo engine, or the stand-in, did so far."""
    stats: dict[str, int] = get_json(url + "/demo/stats")
    return stats
