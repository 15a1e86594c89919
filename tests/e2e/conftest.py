"""The whole platform, started once for the tests that leave it as they found it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.engines import EngineProcess, demo_engine, llama_server, ollama_standin
from tests.support.gguf_model import SLOW
from tests.support.stack import Stack, running_stack


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A data directory with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="c2l-test-") as folder:
        yield Path(folder) / "data"


@pytest.fixture(scope="package")
def real_engine() -> Iterator[EngineProcess]:
    """The real llama.cpp server."""
    with llama_server() as engine:
        yield engine


@pytest.fixture(scope="package")
def standin(real_engine: EngineProcess) -> Iterator[EngineProcess]:
    """Ollama's API in front of the real engine."""
    with ollama_standin(real_engine) as engine:
        yield engine


@pytest.fixture(scope="package")
def paced() -> Iterator[EngineProcess]:
    """The scripted engine, whose pace and faults each request sets."""
    with demo_engine(load_seconds=0, prefill_seconds=0) as engine:
        yield engine


@pytest.fixture(scope="package")
def openai_stack(real_engine: EngineProcess) -> Iterator[Stack]:
    """The platform before the real engine."""
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[real_engine.url]) as stack,
    ):
        yield stack


@pytest.fixture(scope="package")
def ollama_stack(standin: EngineProcess) -> Iterator[Stack]:
    """The platform before Ollama's API and the real engine behind it."""
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[standin.url]) as stack,
    ):
        yield stack


@pytest.fixture(scope="package")
def paced_stack(paced: EngineProcess) -> Iterator[Stack]:
    """The platform before the scripted engine."""
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[paced.url]) as stack,
    ):
        yield stack


@pytest.fixture(scope="package")
def slow_stack() -> Iterator[tuple[Stack, EngineProcess]]:
    """The platform before a real engine that goes on for long, and that engine."""
    with (
        llama_server(SLOW) as engine,
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[engine.url]) as stack,
    ):
        yield stack, engine
