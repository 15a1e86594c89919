"""The engine that runs the users' proxies is killed while answers stream, and comes back."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from tests.support.compose_answers import answering
from tests.support.deployment import Deployment, paired, running_deployment, sign_in
from tests.support.docker_engine import docker, proxy_image
from tests.support.engines import EngineProcess
from tests.support.own_engine import OwnEngine, running_own_engine
from tests.support.stack import wait_for

from cloudtolocalllm.manager.drivers.docker.spec import MANAGED_BY

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Somebody:
    """A person with a paired machine and an API key."""

    deployment: Deployment
    key: str

    @property
    def engine(self) -> EngineProcess:
        return self.deployment.engine

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.deployment.url, headers=headers, timeout=30)

    def ask(self) -> httpx.Response:
        with self.client() as client:
            return client.get("/v1/models")


@pytest.fixture
def own_engine() -> Iterator[OwnEngine]:
    with running_own_engine(proxy_image()) as engine:
        yield engine


def arrive(deployment: Deployment, account: str) -> Somebody:
    """Sign in, pair a machine, make a key."""
    with sign_in(deployment, account) as browser:
        paired(deployment, browser, f"home-{account}")
        made = browser.post("/api/auth/keys", json={"name": "test", "days": 1})
        assert made.status_code == 201, made.text
        return Somebody(deployment, str(made.json()["key"]))


def containers(engine: OwnEngine) -> list[str]:
    return docker("ps", "-a", "--filter", f"label={MANAGED_BY}", "--format", "{{.Names}}", host=engine.url).split()


def test_answers_outlive_the_engine_that_runs_their_proxy(own_engine: OwnEngine) -> None:
    manager = {"driver": "docker", "docker": own_engine.url, "image": proxy_image(), "warm": 0, "poll_interval": 1}
    with running_deployment(manager=manager) as deployment:
        first, second = arrive(deployment, "alice"), arrive(deployment, "bob")
        assert first.ask().status_code == 200
        (mine,) = containers(own_engine)
        with answering(first, 5, tokens=150, pace=10) as answers:
            own_engine.kill()
            refused = second.ask()
            assert refused.status_code == 503
            print(f"\nwhile it is dead: {refused.json()}")
            assert "the container engine does not answer" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) >= 1
            for _ in range(8):  # who has a proxy keeps it, for longer than it takes to be judged as not answering
                assert first.ask().status_code == 200
                time.sleep(0.5)
            own_engine.start()
            began = time.monotonic()
            wait_for(lambda: second.ask().status_code == 200, within=30, what="a new user to be served")
            print(f"new users {time.monotonic() - began:.1f} s after the engine was back")
        print(answers.line())
        assert answers.faults("refused", "cut", "altered") == []
        assert mine in containers(own_engine)  # adopted, not made anew
        assert len(containers(own_engine)) == 2
    assert containers(own_engine) == []
