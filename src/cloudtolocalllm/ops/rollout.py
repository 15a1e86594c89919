"""Replaces a service's containers by new ones, with nothing cut; see rollout_plan for the rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cloudtolocalllm.ops.engine import MAKE, Engine, OpsError, Runner
from cloudtolocalllm.ops.rollout_plan import (
    SERVICES,
    Container,
    Plan,
    Round,
    Service,
    Wanted,
    Way,
    faults,
    is_right,
    plan,
    read_service,
)

LOOK_INTERVAL = 0.5
"""Seconds between two looks at containers that get healthy, or end."""
LOG_LINES = 30
IMAGE_OF_PROXIES = "streaming-proxy"
IDENTITY = "/run/c2l/instances/manager-id"
"""In the manager's container: what the proxies' containers are labelled with."""
MANAGED_BY = "org.cloudtolocalllm.managed-by"


@dataclass(frozen=True, slots=True)
class Options:
    """How somebody wants it."""

    force: bool = False
    wait: bool = False
    """Whether to stay until what drains in the background has ended."""
    at_a_time: int | None = None
    start: float | None = None
    """Seconds within which a new container must be healthy; None for the service's own."""
    drain: float | None = None
    """Seconds that an old one may take to end; None for the service's own."""


class Rollout:
    """Replaces services of one project."""

    def __init__(
        self,
        engine: Engine,
        runner: Runner,
        options: Options,
        say: Callable[[str], None],
        finish: Callable[[str, Sequence[str]], None],
    ) -> None:
        """Make one that has done nothing.

        Args:
            engine: The project's.
            runner: Tells the time.
            options: How it is wanted.
            say: Called with each line for people.
            finish: Called with a service's name and the ids of containers of it that drain: removes each when it has
                ended, in the background.
        """
        self._engine = engine
        self._runner = runner
        self._options = options
        self._say = say
        self._finish = finish

    def all(self) -> None:
        """Replace every service that is not as Compose would make it.

        Raises:
            OpsError: One could not be replaced; those after it were not touched.
        """
        for name in SERVICES:
            self.service(name)
        self.proxies()

    def service(self, name: str) -> None:
        """Replace one service.

        Raises:
            OpsError: It could not be; the text says how things stand and what to do.
        """
        known = self.known(name)
        project, wanted = self._wanted(name)
        found = self._engine.containers(project, name)
        said = faults(found, wanted.image, force=self._options.force)
        if said:
            raise OpsError("\n".join(f"{name}: {one}" for one in said))
        if known.way is Way.AGAIN:
            self._again(known, project, wanted, found)
            return
        todo = plan(found, wanted, force=self._options.force, at_a_time=self._options.at_a_time)
        self._beside(known, project, wanted, todo)

    def known(self, name: str) -> Service:
        """Return what is known of a service, with the times that somebody wants."""
        found, options = SERVICES[name], self._options
        found = found if options.start is None else replace(found, start=options.start)
        return found if options.drain is None else replace(found, drain=options.drain)

    def _wanted(self, name: str) -> tuple[str, Wanted]:
        config = self._engine.compose("config")  # fails where the files are not valid
        project = self._engine.project()
        try:
            image, replicas = read_service(config, name)
        except ValueError as error:
            raise OpsError(str(error)) from None
        return project, Wanted(self._engine.image(image), self._engine.config_hash(name), replicas)

    # -- one beside the other

    def _beside(self, service: Service, project: str, wanted: Wanted, todo: Plan) -> None:
        self._remove(todo.clear)
        if not todo.rounds:
            self._say(f"{service.name}: nothing to do; it runs the image and the settings that it should")
            self._leave(service, todo.draining)
            return
        for turn in todo.rounds:
            self._turn(service, project, turn)
        serving = [one for one in self._engine.containers(project, service.name) if not one.retired]
        replicas = len(serving)
        if not is_right(serving, wanted, max(1, replicas)):
            raise OpsError(
                f"{service.name}: expected only what is new and healthy to serve, got "
                f"{', '.join(one.name + ' ' + (one.health or 'ended') for one in serving) or 'nothing'}; run it again"
            )
        self._say(f"{service.name}: replaced; {replicas} serve")
        left = [one for one in self._engine.containers(project, service.name) if one.retired]
        self._leave(service, left)

    def _turn(self, service: Service, project: str, turn: Round) -> None:
        found = self._engine.containers(project, service.name)
        self._remove([one for one in found if not one.running])  # Compose would start them again
        before = {one.id for one in found if one.running}
        made: list[Container] = []
        try:
            if turn.start:
                made = self._start(service, project, turn, before)
                self._until_healthy(service, [one.id for one in made])
        except BaseException as error:
            self._undo(service, self._new(project, service, before))
            if isinstance(error, OpsError):
                raise OpsError(f"{error}\nWhat is new was removed; what ran before goes on untouched.") from None
            raise
        if made and service.settle:
            self._runner.sleep(service.settle)
        self._retire(service, turn.retire)

    def _start(self, service: Service, project: str, turn: Round, before: set[str]) -> list[Container]:
        self._say(f"{service.name}: starting {turn.start} beside the {len(turn.retire)} that will go")
        scale = f"{service.name}={len(before) + turn.start}"
        self._engine.compose(
            "up", "-d", "--no-deps", "--no-recreate", "--no-build", "--scale", scale, service.name, timeout=MAKE
        )
        made = self._new(project, service, before)
        if len(made) != turn.start:
            raise OpsError(f"{service.name}: expected {turn.start} new containers, Compose made {len(made)}")
        return made

    def _new(self, project: str, service: Service, before: set[str]) -> list[Container]:
        return [one for one in self._engine.containers(project, service.name) if one.id not in before]

    def _until_healthy(self, service: Service, ids: Sequence[str]) -> None:
        deadline = self._runner.now() + service.start
        while True:
            found = self._engine.inspect(ids)
            if len(found) == len(ids) and all(one.healthy for one in found):
                return
            ill = [one.name for one in found if one.health == "unhealthy"]
            if ill:
                raise OpsError(f"{service.name}: expected {ill[0]} to get healthy, its health check says unhealthy")
            if self._runner.now() >= deadline:
                raise OpsError(f"{service.name}: expected it to be healthy within {service.start:.0f} s")
            self._runner.sleep(LOOK_INTERVAL)

    def _undo(self, service: Service, made: Sequence[Container]) -> None:
        for one in self._engine.inspect(each.id for each in made):
            if not one.healthy:
                self._say(f"--- the end of what {one.name} wrote:\n{self._engine.logs(one.id, LOG_LINES)}\n---")
        if not made:
            return
        # One that is not healthy may serve all the same, as nginx does from the sockets that it shares.
        ids = [one.id for one in made]
        self._engine.docker("update", "--restart=no", *ids)
        self._engine.docker("stop", "-t", str(service.stop), *ids, timeout=MAKE)
        self._remove(made)
        self._say(f"{service.name}: removed {', '.join(one.name for one in made)}")

    # -- the end of what is old

    def _retire(self, service: Service, old: Sequence[Container]) -> None:
        if not old:
            return
        ids = [one.id for one in old]
        self._say(f"{service.name}: {', '.join(one.name for one in old)} may end when all is answered")
        self._engine.docker("update", "--restart=no", *ids)
        for one in old:
            try:
                self._engine.docker("kill", f"--signal={service.signal}", one.id)
            except OpsError:
                if any(each.running for each in self._engine.inspect([one.id])):
                    raise
        if not service.background:
            self.finish(service, ids)

    def finish(self, service: Service, ids: Sequence[str]) -> None:
        """Wait until containers that were told to end have, and remove them; stop them when their time is over."""
        deadline = self._runner.now() + service.drain
        while found := self._engine.inspect(ids):
            self._remove([one for one in found if not one.running])
            left = [one for one in found if one.running]
            if not left:
                return
            if self._runner.now() >= deadline:
                names = ", ".join(one.name for one in left)
                self._say(f"{service.name}: not ended after {service.drain:.0f} s, so it is stopped: {names}")
                self._engine.docker("stop", "-t", str(service.stop), *(one.id for one in left), timeout=MAKE)
                self._remove(left)
                return
            self._runner.sleep(LOOK_INTERVAL)

    def _leave(self, service: Service, draining: Sequence[Container]) -> None:
        """See to what was told to end and has not yet."""
        left = [one.id for one in self._engine.inspect(one.id for one in draining)]
        if not left:
            return
        if service.background and not self._options.wait:
            self._say(
                f"{service.name}: {len(left)} of the old ones still answer streams and hold bridges, and end with "
                f"the last, at the latest after {service.drain / 60:.0f} min. Until then do not run "
                f"`{self._engine.command} up` for this service."
            )
            self._finish(service.name, left)
            return
        self.finish(service, left)

    def _remove(self, containers: Sequence[Container]) -> None:
        if containers:
            self._engine.docker("rm", "-f", "-v", *(one.id for one in containers), timeout=MAKE)

    # -- one after the other

    def _again(self, service: Service, project: str, wanted: Wanted, found: Sequence[Container]) -> None:
        if not self._options.force and is_right(found, wanted, wanted.replicas):
            self._say(f"{service.name}: nothing to do; it runs the image and the settings that it should")
            return
        self._say(f"{service.name}: made anew; it is away for a moment")
        force = ("--force-recreate",) if self._options.force else ()
        self._engine.compose("up", "-d", "--no-deps", "--no-build", *force, service.name, timeout=MAKE)
        ids = [one.id for one in self._engine.containers(project, service.name)]
        try:
            self._until_healthy(service, ids)
        except OpsError as error:
            for one in self._engine.inspect(ids):
                self._say(f"--- the end of what {one.name} wrote:\n{self._engine.logs(one.id, LOG_LINES)}\n---")
            raise OpsError(
                f"{error}\nThe one before it is gone. Put the tag or the setting back that you changed (.env), and "
                f"run it again with --force."
            ) from None
        self._say(f"{service.name}: replaced")

    # -- the users' proxies

    def proxies(self) -> None:
        """Tell how many of the users' proxies run an older image; they are replaced when they are next idle.

        Raises:
            OpsError: The manager does not run, or with --wait: they were not all replaced in time.
        """
        deadline = self._runner.now() + 24 * 3600.0
        said = -1
        while True:
            old, total = self._old_proxies()
            if old != said:
                self._say(
                    f"{IMAGE_OF_PROXIES}: {old} of {total} run an older image"
                    + ("; each is replaced once nobody has used it for C2L_MANAGER_IDLE_TIMEOUT" if old else "")
                )
                said = old
            if not old or not self._options.wait:
                return
            if self._runner.now() >= deadline:
                raise OpsError(f"{IMAGE_OF_PROXIES}: expected all to be replaced within a day, {old} are not")
            self._runner.sleep(5.0)

    def _old_proxies(self) -> tuple[int, int]:
        project = self._engine.project()
        image, _ = read_service(self._engine.compose("--profile", "build", "config"), IMAGE_OF_PROXIES)
        wanted = self._engine.image(image)
        if not wanted:
            raise OpsError(f"{IMAGE_OF_PROXIES}: expected the image {image} to be in the engine; build or pull it")
        managers = [one for one in self._engine.containers(project, "streaming-proxy-manager") if one.running]
        if not managers:
            raise OpsError(f"expected the manager to run; start it with `{self._engine.command} up -d`")
        identity = self._engine.docker("exec", managers[0].id, "cat", IDENTITY).strip()
        ids = self._engine.docker("ps", "-q", "--no-trunc", "--filter", f"label={MANAGED_BY}={identity}").split()
        found = self._engine.inspect(ids)
        return sum(one.image != wanted for one in found), len(found)
