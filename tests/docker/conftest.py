"""One platform by Compose, with a certificate by ACME and a person at home, for all tests that leave it as it was.

test_compose_rollout.py does not: it replaces the images. It comes last of them, by its name.
"""

from collections.abc import Iterator

import pytest
from tests.support.compose_home import Home, paired_home
from tests.support.compose_stack import Platform, running_platform
from tests.support.engines import EngineProcess, demo_engine, llama_server, ollama_standin


@pytest.fixture(scope="package")
def acme_platform() -> Iterator[Platform]:
    """A platform that came up from nothing, its certificate issued by pebble."""
    with running_platform("acme") as platform:
        print(f"\nup -d to healthy with a certificate: {platform.took:.1f} s")
        yield platform


@pytest.fixture(scope="package")
def real_engine() -> Iterator[EngineProcess]:
    """The real llama.cpp server."""
    with llama_server() as engine:
        yield engine


@pytest.fixture(scope="package")
def standin(real_engine: EngineProcess) -> Iterator[EngineProcess]:
    """Ollama's API in front of it."""
    with ollama_standin(real_engine, load_seconds=0, prefill_seconds=0) as engine:
        yield engine


@pytest.fixture(scope="package")
def home(acme_platform: Platform, real_engine: EngineProcess, standin: EngineProcess) -> Iterator[Home]:
    """A person with a paired machine. Its engines: a scripted one, whose answers can be long; and the real one."""
    with (
        demo_engine(load_seconds=0, prefill_seconds=0, models="demo:latest") as scripted,
        paired_home(acme_platform, scripted, real_engine, standin) as found,
    ):
        yield found
