"""The engine's API as far as the driver uses it, typed, with our errors: the one module that knows aiodocker."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError
from aiodocker.networks import DockerNetwork
from aiohttp.http_exceptions import LineTooLong

from cloudtolocalllm.manager.drivers.base import DriverError, DriverUnavailableError
from cloudtolocalllm.runtime.tasks import TaskSet

T = TypeVar("T")

CALL_TIMEOUT = 30.0
"""Seconds for one call; an engine under load takes some for a start."""
CONNECT_TIMEOUT = 2.0
LOG_LINES = 5
REMOVE_TRIES = 5
NO_CONNECTION = 900
"""aiodocker's status for an engine that cannot be reached."""
NOT_FOUND, CONFLICT, FORBIDDEN = 404, 409, 403
API_VERSION = "v1.41"
"""Of Docker 20.10, the oldest that is supported; pinned, so that no call is spent on asking."""


class RefusedError(DriverError):
    """The engine answered, but would not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the engine refused ({status}): {message[:300]}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Listed:
    """A container as a list shows it."""

    id: str
    labels: dict[str, str]
    image: str
    """The image's id."""
    state: str
    """"created", "running", "paused", "restarting", "removing", "exited" or "dead"."""

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.state == "running"

    @property
    def ended(self) -> bool:
        """Whether its process ran and does not any more."""
        return self.state in ("exited", "dead", "removing")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a container."""

    action: str
    """"die", "oom" or "start"."""
    container: str
    name: str
    labels: dict[str, str]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what the client raises into the driver's errors."""
    try:
        yield
    except DockerError as error:
        if error.status == NO_CONNECTION:
            raise DriverUnavailableError("the container engine does not answer") from error
        raise RefusedError(error.status, error.message) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        # A caller's own deadline cancels, and so is not taken for the engine's.
        raise DriverUnavailableError("the container engine does not answer") from error


class Engine:
    """One Docker engine."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._docker: aiodocker.Docker | None = None
        self._making = TaskSet(limit=1000)

    @property
    def _client(self) -> aiodocker.Docker:
        if self._docker is None:
            self._docker = aiodocker.Docker(url=self._url, api_version=API_VERSION, timeout=_within(CALL_TIMEOUT))
        return self._docker

    async def close(self) -> None:
        """End the connections. Idempotent."""
        await self._making.close()
        docker, self._docker = self._docker, None
        if docker is not None:
            await docker.close()

    async def image_id(self, name: str) -> str | None:
        """Return the id of an image, or None when the engine does not have it; it is never pulled."""
        with _told():
            try:
                return str((await self._client.images.inspect(name))["Id"])
            except DockerError as error:
                if error.status == NOT_FOUND:
                    return None
                raise

    async def volume_folder(self, name: str) -> str:
        """Return where a volume is on the engine's host.

        Raises:
            DriverError: There is no such volume.
        """
        with _told():
            return str((await self._client._query_json(f"volumes/{name}"))["Mountpoint"])

    async def create(self, name: str, body: dict[str, Any]) -> str:
        """Make a container and return its id."""
        with _told():
            return (await self._to_its_end(self._client.containers.create(body, name=name))).id

    async def start(self, container: str, standard_input: bytes) -> None:
        """Start a container that was just made, and give it its standard input, which then ends."""
        with _told():
            made = self._client.containers.container(container)
            async with made.attach(stdin=True) as stream:
                await made.start()
                await stream.write_in(standard_input)

    async def stop(self, container: str, grace: float) -> None:
        """Tell a container to end, and end it by force after `grace` seconds. Without effect when it is not there."""
        seconds = max(1, round(grace))
        with _told(), _unless(NOT_FOUND):
            # Without a timeout of its own aiodocker waits for ever, here, in `remove` and in `last_words`.
            handle = self._client.containers.container(container)
            await handle.stop(t=seconds, timeout=_within(CALL_TIMEOUT + seconds))

    async def remove(self, container: str) -> None:
        """Remove a container, running or not. Without effect when it is not there.

        Raises:
            DriverError: It is being removed already, or cannot be.
        """
        with _told(), _unless(NOT_FOUND):
            await self._client.containers.container(container).delete(
                force=True, v=True, timeout=_within(CALL_TIMEOUT)
            )

    async def containers(self, label: str) -> list[Listed]:
        """Return all containers, running or not, with a label ("key=value")."""
        with _told():
            found = await self._client._query_json(  # the public method gives objects without types
                "containers/json", params={"all": 1, "filters": json.dumps({"label": [label]})}
            )
        return [
            Listed(
                id=str(one["Id"]),
                labels=dict(one["Labels"] or {}),
                image=str(one["ImageID"]),
                state=str(one["State"]),
            )
            for one in found
        ]

    async def last_words(self, container: str) -> str:
        """Return the last lines of a container's log; empty when there are none to be had."""
        try:
            handle = self._client.containers.container(container)
            lines = await handle.log(stdout=True, stderr=True, tail=LOG_LINES, timeout=_within(CALL_TIMEOUT))
        except (DockerError, aiohttp.ClientError, OSError, TimeoutError):
            return ""
        return "".join(lines)[:2000]

    async def create_network(self, body: dict[str, Any]) -> None:
        """Make a network."""
        with _told():
            await self._to_its_end(self._client.networks.create(body))

    async def networks(self, label: str) -> list[tuple[dict[str, str], str]]:
        """Return labels and subnet of all networks with a label ("key=value")."""
        with _told():
            found = await self._client.networks.list(filters={"label": [label]})
        return [(dict(one["Labels"] or {}), _subnet(one)) for one in found]

    async def connect(self, network: str, container: str) -> None:
        """Let a container into a network. Without effect when it is in, or not there."""
        with _told(), _unless(NOT_FOUND, FORBIDDEN, CONFLICT):
            await self._to_its_end(self._handle(network).connect({"Container": container}))

    async def networks_of(self, filters: dict[str, list[str]]) -> dict[str, set[str]]:
        """Return the names of the networks that running containers are in, by the container's id.

        Args:
            filters: Which containers (Engine API, ContainerList).
        """
        with _told():
            found = await self._client._query_json("containers/json", params={"filters": json.dumps(filters)})
        return {str(one["Id"]): set((one.get("NetworkSettings") or {}).get("Networks") or ()) for one in found}

    async def remove_network(self, network: str) -> None:
        """Remove a network with whoever still is in it. Without effect when it is not there."""
        with _told(), _unless(NOT_FOUND):
            handle = self._handle(network)
            for attempt in range(REMOVE_TRIES):
                for container in (await handle.show()).get("Containers") or {}:
                    with _unless(NOT_FOUND, FORBIDDEN):
                        await handle.disconnect({"Container": container, "Force": True})
                try:
                    await handle.delete()
                except DockerError as error:
                    # Somebody may just be on the way in, or out.
                    if error.status != FORBIDDEN or attempt + 1 == REMOVE_TRIES:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return

    async def _to_its_end(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call that makes something, and when cancelled, cancel only after it is made or not.

        Otherwise it might come about after whoever cancelled has cleared up.
        """
        made: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = self._making.start(_into(made, call), "makes something")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=CALL_TIMEOUT)
            if made.done():
                made.exception()  # nobody is there who could be told
            raise
        return await made

    def _handle(self, network: str) -> DockerNetwork:
        return DockerNetwork(self._client, network)  # type: ignore[no-untyped-call] # the library leaves it without types

    async def events(self, since: float) -> AsyncGenerator[Event, None]:
        """Yield what happens to containers, for ever.

        Args:
            since: Seconds since the epoch from which on events are told, also of the past.

        Raises:
            DriverUnavailableError: The engine does not answer any more, or not as agreed.
        """
        params = {
            "since": f"{since:.0f}",
            "filters": json.dumps({"type": ["container"], "event": ["die", "oom", "start"]}),
        }
        endless = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)
        with _told():
            async with self._client._query("events", params=params, timeout=endless) as response:
                try:
                    async for line in response.content:
                        yield _event(json.loads(line))
                except (ValueError, AttributeError, LineTooLong) as error:
                    raise DriverUnavailableError("the container engine tells of an event that is none") from error
                finally:
                    response.close()
        raise DriverUnavailableError("the container engine ended the connection")


def _within(seconds: float) -> aiohttp.ClientTimeout:
    """Return the deadlines of a call that takes at most so long."""
    return aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT)


async def _into(made: "asyncio.Future[T]", call: Coroutine[Any, Any, T]) -> None:
    """Put what a call returns or raises into a future: it is the caller's, and no failed task's."""
    try:
        made.set_result(await call)
    except (DockerError, aiohttp.ClientError, OSError, TimeoutError) as error:
        made.set_exception(error)


@contextlib.contextmanager
def _unless(*statuses: int) -> Iterator[None]:
    """Take these answers for success."""
    try:
        yield
    except DockerError as error:
        if error.status not in statuses:
            raise


def _event(value: dict[str, Any]) -> Event:
    actor = value.get("Actor") or {}
    attributes = {str(key): str(text) for key, text in (actor.get("Attributes") or {}).items()}
    return Event(str(value.get("Action")), str(actor.get("ID")), attributes.get("name", ""), attributes)


def _subnet(network: dict[str, Any]) -> str:
    for config in (network.get("IPAM") or {}).get("Config") or ():
        return str(config.get("Subnet", ""))
    return ""
