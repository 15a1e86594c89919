"""A rollout against an engine and a Compose that are words only: what is run, in which order, what is undone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from cloudtolocalllm.ops.engine import Done, Engine, OpsError
from cloudtolocalllm.ops.rollout import Options, Rollout

CONFIG = """\
services:
  api-backend:
    deploy:
      replicas: 2
    image: c2l/api-backend:1
  nginx-proxy:
    image: c2l/nginx-proxy:1
  redis:
    image: c2l/redis:1
  streaming-proxy:
    image: c2l/streaming-proxy:1
"""


@dataclass
class One:
    id: str
    service: str
    image: str = "sha256:old"
    config: str = "hash-old"
    running: bool = True
    health: str = "healthy"
    restart: str = "unless-stopped"
    ends_at: float | None = None


@dataclass
class Machine:
    """A fake machine: docker and docker-compose as far as a rollout uses them, and a clock."""

    containers: list[One] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    time: float = 0.0
    new_health: Callable[[float], str] = lambda age: "healthy" if age > 3 else "starting"
    made_at: dict[str, float] = field(default_factory=dict)
    drains: float = 2.0
    image: str = "sha256:new"
    v2: bool = True
    least: int = 99
    """The fewest that served at any time."""

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for one in self.containers:
            if one.ends_at is not None and one.ends_at <= self.time:
                one.running = False
            if one.id in self.made_at:
                one.health = self.new_health(self.time - self.made_at[one.id])
        self._count()

    def run(self, words: Sequence[str], timeout: float) -> Done:
        assert timeout > 0
        line = " ".join(words)
        self.ran.append(line)
        if words[:2] == ("docker", "compose") and not self.v2:
            return Done(1, "", "docker: 'compose' is not a docker command.")
        if words[0] == "docker-compose" or words[1] == "compose":
            return self._compose(list(words[1:] if words[0] == "docker-compose" else words[2:]))
        return self._docker(list(words[1:]))

    def _count(self) -> None:
        serving = [o for o in self.containers if o.running and o.ends_at is None and o.health == "healthy"]
        self.least = min(self.least, len(serving))

    def _compose(self, words: list[str]) -> Done:
        if words[:2] == ["config", "--hash"]:
            return Done(0, f"{words[2]} hash-new\n", "")
        if words[-1] == "config":
            return Done(0, CONFIG, "")
        if words[:2] == ["ps", "-q"]:
            return Done(0, "\n".join(one.id for one in self.containers), "")
        if words[0] == "up":
            service = words[-1]
            there = [one for one in self.containers if one.service == service]
            scale = int(words[words.index("--scale") + 1].split("=")[1]) if "--scale" in words else 1
            if "--no-recreate" not in words:
                for one in there:
                    self.containers.remove(one)
                there = []
            for number in range(scale - len(there)):
                made = One(f"new{number}", service, "sha256:new", "hash-new", health="starting")
                self.made_at[made.id] = self.time
                self.containers.append(made)
        return Done(0, "", "")

    def _docker(self, words: list[str]) -> Done:
        named = [one for one in self.containers if one.id in words]
        if words[0] == "ps":
            service = next(w.rpartition("=")[2] for w in words if w.startswith("label=com.docker.compose.service="))
            return Done(0, "\n".join(one.id for one in reversed(self.containers) if one.service == service), "")
        if words[:2] == ["container", "inspect"]:
            return Done(0, json.dumps([_described(one) for one in named]), "")
        if words[0] == "inspect":
            return Done(0, "c2l\n", "")
        if words[:2] == ["image", "inspect"]:
            return Done(0 if self.image else 1, self.image + "\n", "")
        for one in named:
            if words[0] == "update":
                one.restart = "no"
            elif words[0] == "kill":
                assert one.restart == "no"
                one.ends_at = self.time + self.drains
            elif words[0] == "rm":
                self.containers.remove(one)
            elif words[0] == "stop":
                one.running = False
        self._count()
        return Done(0, "the last words" if words[0] == "logs" else "", "")


def _described(one: One) -> dict[str, object]:
    return {
        "Id": one.id,
        "Name": f"/{one.id}",
        "Image": one.image,
        "Config": {"Labels": {"com.docker.compose.config-hash": one.config}},
        "State": {"Running": one.running, "Health": {"Status": one.health}},
        "HostConfig": {"RestartPolicy": {"Name": one.restart}},
    }


@dataclass
class Scene:
    machine: Machine
    said: list[str] = field(default_factory=list)
    background: list[tuple[str, list[str]]] = field(default_factory=list)

    def roll(self, service: str, **options: object) -> None:
        wanted = Options(**options)  # type: ignore[arg-type] # as tests give them

        def finish(name: str, ids: Sequence[str]) -> None:
            self.background.append((name, list(ids)))

        Rollout(Engine(self.machine), self.machine, wanted, self.said.append, finish).service(service)

    @property
    def text(self) -> str:
        return "\n".join(self.said)


def scene(service: str = "api-backend", count: int = 2, **changes: object) -> Scene:
    machine = Machine([One(f"old{n}", service) for n in range(count)])
    for name, value in changes.items():
        setattr(machine, name, value)
    return Scene(machine)


@pytest.mark.parametrize("v2", [True, False])
def test_new_ones_serve_before_old_ones_end(v2: bool) -> None:
    it = scene(v2=v2)
    it.roll("api-backend")
    assert [(one.id, one.restart) for one in it.machine.containers] == [
        ("new0", "unless-stopped"),
        ("new1", "unless-stopped"),
    ]
    assert it.machine.least == 2
    ran = it.machine.ran
    up = next(line for line in ran if " up " in line)
    assert up.endswith("up -d --no-deps --no-recreate --no-build --scale api-backend=4 api-backend")
    assert up.startswith("docker compose" if v2 else "docker-compose")
    assert ran.index("docker update --restart=no old0 old1") < ran.index("docker kill --signal=SIGTERM old0")
    assert not any("stop" in line for line in ran)


def test_those_who_look_for_it_have_time_to_find_the_new_one() -> None:
    it = scene()
    it.machine.new_health = lambda _: "healthy"
    ended: list[float] = []
    run = it.machine.run

    def noted(words: Sequence[str], timeout: float) -> Done:
        if words[1] == "kill":
            ended.append(it.machine.time)
        return run(words, timeout)

    it.machine.run = noted  # type: ignore[method-assign] # to look at it
    it.roll("api-backend")
    assert ended[0] >= 4.0


@pytest.mark.parametrize("health", ["unhealthy", "starting"])
def test_what_does_not_get_healthy_is_removed_and_the_old_ones_are_not_touched(health: str) -> None:
    it = scene(new_health=lambda _: health)
    with pytest.raises(OpsError, match="what ran before goes on untouched"):
        it.roll("api-backend")
    assert [(one.id, one.restart, one.ends_at) for one in it.machine.containers] == [
        ("old0", "unless-stopped", None),
        ("old1", "unless-stopped", None),
    ]
    assert "the last words" in it.text
    assert it.machine.time <= 121


def test_an_interruption_while_it_starts_takes_back_what_is_new() -> None:
    def interrupted(_: float) -> str:
        raise KeyboardInterrupt

    it = scene(new_health=interrupted)
    with pytest.raises(KeyboardInterrupt):
        it.roll("api-backend")
    assert [one.id for one in it.machine.containers] == ["old0", "old1"]


def test_one_that_does_not_end_is_stopped_at_last() -> None:
    it = scene(drains=1e9)
    it.roll("api-backend")
    assert "docker stop -t 10 old0 old1" in it.machine.ran
    assert [one.id for one in it.machine.containers] == ["new0", "new1"]


def test_nginx_ends_in_the_background_unless_somebody_waits() -> None:
    it = scene("nginx-proxy", 1, drains=600.0)
    it.roll("nginx-proxy")
    assert it.background == [("nginx-proxy", ["old0"])]
    assert "docker kill --signal=SIGQUIT old0" in it.machine.ran
    assert it.machine.time < 60
    it = scene("nginx-proxy", 1, drains=600.0)
    it.roll("nginx-proxy", wait=True)
    assert it.background == []
    assert 600 <= it.machine.time < 700
    assert [one.id for one in it.machine.containers] == ["new0"]


def test_a_second_rollout_leaves_what_still_drains() -> None:
    it = scene("nginx-proxy", 1, drains=600.0)
    it.roll("nginx-proxy")
    it.machine.containers[-1].id = "first"
    it.roll("nginx-proxy", force=True)
    assert [one.id for one in it.machine.containers if one.restart == "no"] == ["old0", "first"]
    assert any("--scale nginx-proxy=3" in line for line in it.machine.ran)


def test_nothing_is_done_where_nothing_changed() -> None:
    it = scene()
    for one in it.machine.containers:
        one.image, one.config = "sha256:new", "hash-new"
    it.roll("api-backend")
    assert "nothing to do" in it.text
    assert not any(" up " in line for line in it.machine.ran)


def test_nothing_is_begun_without_the_image_or_with_something_ill() -> None:
    it = scene(image="")
    with pytest.raises(OpsError, match="expected the image to be in the engine"):
        it.roll("api-backend")
    it = scene()
    it.machine.containers[1].health = "unhealthy"
    with pytest.raises(OpsError, match="got old1"):
        it.roll("api-backend")
    assert not any(" up " in line for line in it.machine.ran)


def test_of_which_there_is_one_is_made_anew() -> None:
    it = scene("redis", 1)
    it.roll("redis")
    assert any(line.endswith("up -d --no-deps --no-build redis") for line in it.machine.ran)
    assert it.machine.containers[0].image == "sha256:new"
    it = scene("redis", 1, new_health=lambda _: "unhealthy")
    with pytest.raises(OpsError, match="Put the tag or the setting back"):
        it.roll("redis")
    assert "the last words" in it.text


def test_no_compose_is_said() -> None:
    class Nothing(Machine):
        def run(self, words: Sequence[str], timeout: float) -> Done:
            if words[0] == "docker-compose":
                raise OpsError("expected the program docker-compose")
            return Done(1, "", "")

    with pytest.raises(OpsError, match="expected Docker Compose"):
        Engine(Nothing())
