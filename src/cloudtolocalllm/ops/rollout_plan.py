"""What a rollout does, as pure functions: what there is and what is wanted in, what to start and to end out.

Rules
- What is new starts beside what is old, all at once: one health gate for the whole, a mixed fleet for the shortest
  time, and the addresses that nginx reads change twice and not twice a container. Where memory is short, `at_a_time`
  makes several rounds of it.
- Nothing old is touched before everything new of its round is healthy.
- A container is new when it runs the image and the configuration that Compose would give it now; so a rollout that
  was interrupted goes on where it was, and the next `up` of Compose finds nothing to do.
- What was told to end before (its restart policy is "no") counts for nothing any more, and is left to end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


class Way(Enum):
    """How a service is replaced."""

    BESIDE = "beside"
    """The new one starts beside the old one."""
    AGAIN = "again"
    """The old one ends first, since there can be only one: it is away for a moment."""


@dataclass(frozen=True, slots=True)
class Service:
    """What is known of a service beforehand. Times in seconds."""

    name: str
    way: Way
    signal: str = "SIGTERM"
    """What it drains at."""
    drain: float = 30.0
    """How long it may take to end after that."""
    stop: int = 10
    """How long it has when it is stopped because that time is over."""
    start: float = 120.0
    """How long a new one may take to be healthy."""
    settle: float = 0.0
    """How long those who look for it may need to find the new one, before the old one goes."""
    background: bool = False
    """Whether its end may take so long that nobody should have to watch."""


SERVICES = {
    service.name: service
    for service in (
        Service("redis", Way.AGAIN),
        Service("streaming-proxy-manager", Way.BESIDE, drain=40.0),
        Service("api-backend", Way.BESIDE, settle=4.0),
        Service("web-app", Way.BESIDE, settle=4.0),
        Service("certbot", Way.AGAIN),
        Service("nginx-proxy", Way.BESIDE, signal="SIGQUIT", drain=3600.0, stop=45, background=True),
    )
}
"""In the order in which all of them are replaced: who is asked before who asks."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a service as the engine has it."""

    id: str
    name: str
    image: str
    """The id of its image."""
    config: str
    """Compose's hash of the configuration that it was made with."""
    running: bool
    health: str
    """healthy, unhealthy or starting; empty for one without a health check."""
    restart: str
    """Its restart policy."""

    @property
    def retired(self) -> bool:
        """Whether a rollout told it to end."""
        return self.restart in ("no", "")

    @property
    def healthy(self) -> bool:
        """Whether it does its work."""
        return self.running and self.health in ("healthy", "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What Compose would make now."""

    image: str
    """The id of the image, not its name."""
    config: str
    replicas: int

    def has(self, container: Container) -> bool:
        """Tell whether a container is as one that would be made now."""
        return (container.image, container.config) == (self.image, self.config)


@dataclass(frozen=True, slots=True)
class Round:
    """One turn: start so many, and when they are healthy end the ones that are named."""

    start: int
    retire: tuple[Container, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    clear: tuple[Container, ...]
    """Do not run; Compose would start them again."""
    rounds: tuple[Round, ...]
    draining: tuple[Container, ...]
    """Were told to end before."""


def plan(found: Sequence[Container], wanted: Wanted, *, force: bool = False, at_a_time: int | None = None) -> Plan:
    """Return what to do for a service that is replaced beside itself.

    Args:
        found: All its containers.
        wanted: What Compose would make.
        force: Whether to replace also those that need not be.
        at_a_time: Containers started in one round at most; None for no bound.
    """
    clear = tuple(one for one in found if not one.running)
    draining = tuple(one for one in found if one.running and one.retired)
    serving = [one for one in found if one.running and not one.retired]
    new = [] if force else [one for one in serving if wanted.has(one)]
    old = [one for one in serving if one not in new]
    # Where nothing is new yet, as many as there are: somebody may have scaled it by hand.
    replicas = wanted.replicas if new or not old else len(old)
    old.sort(key=lambda one: one.healthy)  # those that serve nobody go first
    missing = max(0, replicas - len(new))
    size = at_a_time or max(1, missing)
    rounds = []
    while missing or old:
        made = min(size, missing)
        missing -= made
        # Never fewer than wanted at a round's end; in the last one all that is old goes.
        go = old if not missing else old[:made]
        old = old[len(go) :]
        rounds.append(Round(made, tuple(go)))
    return Plan(clear, tuple(rounds), draining)


def faults(found: Iterable[Container], image: str, *, force: bool = False) -> list[str]:
    """Return why a rollout should not begin; none when it may.

    Args:
        found: The service's containers.
        image: The id of the image that is wanted; empty when the engine does not have it.
        force: Whether to begin though something is not healthy.
    """
    said = []
    if not image:
        said.append("expected the image to be in the engine; build or pull it first (see docs/how-to/update.md)")
    ill = [one.name for one in found if not one.retired and one.running and not one.healthy]
    if ill and not force:
        said.append(f"expected everything to be healthy, got {', '.join(ill)}; mend it, or say --force")
    return said


def is_right(found: Iterable[Container], wanted: Wanted, replicas: int) -> bool:
    """Tell whether there is what Compose would make, in that number, apart from what was told to end."""
    serving = [one for one in found if not one.retired]
    return len(serving) == replicas and all(one.healthy and wanted.has(one) for one in serving)


def read_service(config: str, service: str) -> tuple[str, int]:
    """Return a service's image and number of replicas from what `compose config` prints.

    Both Compose 1.29 and v2 print one key a line with two more spaces for each level; that much of YAML is read here.

    Raises:
        ValueError: There is no such service, or it has no image.
    """
    image, replicas, path = "", 1, ["", "", "", ""]
    for line in config.splitlines():
        text = line.lstrip(" ")
        depth = (len(line) - len(text)) // 2
        key, separator, value = text.partition(":")
        if not separator or text.startswith(("-", "#")) or depth > 3:
            continue
        path[depth:] = [key.strip("'\""), *[""] * (3 - depth)]
        if path[:3] == ["services", service, "image"]:
            image = value.strip(" '\"")
        elif path == ["services", service, "deploy", "replicas"]:
            replicas = int(value.strip(" '\""))
    if not image:
        raise ValueError(f"expected the Compose file to have a service {service} with an image")
    return image, replicas
