"""The API's side of the streaming proxy manager's HTTP API.

One manager leads. One that does not (a standby, or one that is leaving) accepts no connection, or answers 503 with
`Retry-After: 0` and `Connection: close`: whoever asks again at once, over a new connection, comes to the one that
does. While none does, as for a moment when one follows the other, users whose proxy is known are served from memory.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.instances import Instance, InstanceState
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.http1 import Headers, HttpError, Pool, Response, fetch
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

CACHE_TTL = 5.0
"""Seconds an answer is used again. A proxy that died within them is found out by the edge, which asks afresh."""
STALE_TTL = 600.0
"""Seconds an answer is used again while no manager answers: the proxies go on without one."""
CACHE_SIZE = 20_000
"""Users whose proxy is remembered; about 1 KB each."""
PATIENCE = 8.0
"""Seconds for which it is asked again while no manager answers: longer than one needs to follow another."""
PAUSES = (0.1, 0.8)
"""The longest first and the longest later pause between two such attempts, in seconds."""
LOOK_TIMEOUT = 2.0
"""Seconds for questions that start nothing."""
RETRY_AFTER = 2
"""Seconds that a client is asked to wait when the manager does not say."""
MAX_REASON = 200
"""Characters of the manager's words that are passed on."""


class ManagerError(Exception):
    """The manager does not answer, or not as agreed; the text is for the log."""


class NoManagerError(ManagerError):
    """No manager leads now: none accepts a connection, or those that do say that they do not."""


class ManagerBusyError(ManagerError):
    """The manager has no room for another proxy now."""

    def __init__(self, retry_after: int, reason: str = "") -> None:
        super().__init__(reason or "the manager is at capacity")
        self.retry_after = retry_after
        """Seconds."""
        self.reason = reason
        """In the manager's words, for whoever asked; empty when it gave none."""


@dataclass(frozen=True, slots=True)
class ListedInstance:
    """One proxy among all, without its key."""

    id: str
    user: str | None
    """None while it waits in the warm pool."""
    state: InstanceState
    created: float
    """Seconds since the epoch."""
    in_flight: int
    """Streams when the manager last looked."""
    bridges: int
    """Bridges attached when the manager last looked."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ListedInstance":
        """Read one item of the manager's list.

        Raises:
            KeyError: A member is missing.
            ValueError: A member is malformed.
        """
        user = value["user"]
        return cls(
            id=str(value["id"]),
            user=None if user is None else str(user),
            state=InstanceState(value["state"]),
            created=float(value["created"]),
            in_flight=int(value["in_flight"]),
            bridges=int(value["bridges"]),
        )


class ManagerClient:
    """Asks the manager, remembers ready proxies for CACHE_TTL, and asks once for many who wait."""

    def __init__(
        self,
        endpoint: Endpoint,
        bearer: Callable[[], str],
        *,
        timeout: float = 50.0,
        patience: float = PATIENCE,
        clock: Clock | None = None,
    ) -> None:
        """Make a client; it connects when it is first used.

        Args:
            endpoint: Where the manager listens.
            bearer: Returns the token that it knows us by now.
            timeout: Seconds that `ensure` waits for a proxy to be ready, the wait for a manager among them.
            patience: Seconds that whatever needs a manager waits for one to lead.
            clock: None for the machine's.
        """
        self._pool = Pool(str(endpoint))
        self._bearer = bearer
        self._timeout = timeout
        self._patience = patience
        self._clock = clock or SystemClock()
        self._cache: OrderedDict[str, tuple[float, Instance]] = OrderedDict()
        """By user: since when, in monotonic seconds, and what."""
        self._flights: dict[tuple[str, bool], asyncio.Task[Instance | ManagerError]] = {}
        self._tasks = TaskSet()

    async def ensure(self, user: str, *, fresh: bool = False) -> Instance:
        """Return the user's proxy, ready; made if there is none.

        Args:
            user: Whose.
            fresh: Whether what is remembered must not be used, because it was found dead.

        Raises:
            ManagerBusyError: There is no room now.
            ManagerError: No answer in time, or not as agreed.
        """
        if fresh:
            self.forget(user)
        elif (instance := self.remembered(user)) is not None:
            return instance
        flight = self._flights.get((user, fresh))
        if flight is None:
            flight = self._tasks.start(self._fly(user, check=fresh), "ensure")
            self._flights[user, fresh] = flight
            flight.add_done_callback(lambda _: self._flights.pop((user, fresh), None))
        # One who gives up waiting must not end the flight for the others.
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, ManagerError):
            raise outcome
        return outcome

    def remembered(self, user: str) -> Instance | None:
        """Return the user's proxy as last heard of, if that was within CACHE_TTL."""
        return self._heard_of(user, CACHE_TTL)

    def _heard_of(self, user: str, within: float) -> Instance | None:
        entry = self._cache.get(user)
        if entry is None or entry[0] + within <= self._clock.monotonic():
            return None
        return entry[1]

    def forget(self, user: str) -> None:
        """Do not use what is remembered of this user."""
        self._cache.pop(user, None)

    async def get(self, user: str) -> Instance | None:
        """Return the user's proxy; None when there is none.

        Raises:
            ManagerError: No answer in time, or not as agreed.
        """
        response = await self._ask("GET", f"/v1/instances/{user}", LOOK_TIMEOUT)
        return None if response.status == 404 else _instance(_expect(response, 200))

    async def list_instances(self) -> list[ListedInstance]:
        """Return every proxy.

        Raises:
            ManagerError: No answer in time, or not as agreed.
        """
        value = _json(_expect(await self._ask("GET", "/v1/instances", LOOK_TIMEOUT), 200))
        try:
            return [ListedInstance.from_json(item) for item in value["instances"]]
        except (KeyError, ValueError, TypeError):
            raise ManagerError("expected a list of instances") from None

    async def remove(self, user: str) -> None:
        """Remove the user's proxy; without effect when there is none.

        Raises:
            ManagerError: No answer in time, or not as agreed.
        """
        self.forget(user)
        response = await self._ask("DELETE", f"/v1/instances/{user}", self._timeout)
        self.forget(user)  # an `ensure` may have filled it meanwhile
        _expect(response, 204)

    async def disconnect(self, user: str, bridge: str) -> None:
        """Cut a bridge's tunnels to the user's proxy, at once; without effect when there are none.

        Raises:
            ManagerError: No answer in time, or not as agreed.
        """
        content = json.dumps({"bridge": bridge}).encode()
        _expect(await self._ask("POST", f"/v1/instances/{user}/disconnect", LOOK_TIMEOUT, content), 204)

    async def stats(self) -> dict[str, Any]:
        """Return the manager's figures.

        Raises:
            ManagerError: No answer in time, or not as agreed.
        """
        value = _json(_expect(await self._ask("GET", "/v1/stats", LOOK_TIMEOUT), 200))
        if not isinstance(value, dict):
            raise ManagerError("expected an object of figures")
        return value

    async def reachable(self) -> bool:
        """Tell whether the manager answers us and can make proxies now."""
        try:
            await self.stats()
            ready = await self._ask("GET", "/readyz", LOOK_TIMEOUT)
        except ManagerError:
            return False
        return ready.status == 200

    async def close(self) -> None:
        """End what is under way and close the connections."""
        await self._tasks.close()
        await self._pool.close()

    async def _fly(self, user: str, *, check: bool) -> Instance | ManagerError:
        """Return a failure rather than raise it: it is for those who wait, not for the log of lost tasks."""
        try:
            instance = await self._put(user, check=check)
        except NoManagerError as error:
            return self._heard_of(user, STALE_TTL) or error
        except ManagerError as error:
            return error
        self._cache[user] = (self._clock.monotonic(), instance)
        self._cache.move_to_end(user)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return instance

    async def _put(self, user: str, *, check: bool) -> Instance:
        # check=true has the manager ask the proxy first, and replace one that does not answer
        query = "?check=true" if check else ""
        patience = 0.0 if self._heard_of(user, STALE_TTL) else self._patience
        response = await self._ask("PUT", f"/v1/instances/{user}{query}", self._timeout, patience=patience)
        if response.status in (429, 503):
            raise ManagerBusyError(_retry_after(response), _reason(response))
        instance = _instance(_expect(response, 200, 201))
        if instance.user != user:
            raise ManagerError("expected this user's instance, got another's")
        if instance.state is not InstanceState.READY:
            raise ManagerError(f"expected a ready instance, got {instance.state.value}")
        return instance

    async def _ask(
        self, method: str, target: str, timeout: float, content: bytes = b"", *, patience: float | None = None
    ) -> Response:
        """Ask whoever leads.

        Args:
            method: Of the request.
            target: Of the request.
            timeout: Seconds for an answer, the wait for a manager to lead among them.
            content: Of the request.
            patience: Seconds to wait for a manager to lead; None for what was configured, at most `timeout`.

        Raises:
            NoManagerError: None led in time.
            ManagerError: No answer in time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        give_up = min(end, loop.time() + (self._patience if patience is None else patience))
        backoff = Backoff(first=PAUSES[0], maximum=PAUSES[1])
        while True:
            try:
                return await self._ask_once(method, target, end - loop.time(), content)
            except NoManagerError:
                left = give_up - loop.time()
                pause = min(backoff.next(), left)
                if left <= 0 or loop.time() + pause >= end:  # no time would be left for an answer
                    raise
            await asyncio.sleep(pause)

    async def _ask_once(self, method: str, target: str, timeout: float, content: bytes) -> Response:
        headers: Headers = ((b"host", self._pool.host), (b"authorization", b"Bearer " + self._bearer().encode()))
        if content:
            headers = (*headers, (b"content-type", b"application/json"))
        try:
            response = await fetch(self._pool, method, target, headers, content, timeout=timeout)
        except TimeoutError:
            raise ManagerError(f"expected an answer from the manager within {round(timeout, 1):g} s") from None
        except (HttpError, OSError) as error:
            raise NoManagerError(f"the manager does not answer: {type(error).__name__}") from error
        if response.status == 503 and response.field(b"retry-after") == b"0":
            raise NoManagerError("the manager does not lead")
        return response


def _expect(response: Response, *statuses: int) -> Response:
    if response.status not in statuses:
        raise ManagerError(f"expected status {statuses[0]} from the manager, got {response.status}")
    return response


def _json(response: Response) -> Any:
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        raise ManagerError("expected JSON from the manager") from None


def _instance(response: Response) -> Instance:
    try:
        return Instance.from_json(_json(response))
    except (KeyError, ValueError, TypeError):
        raise ManagerError("expected an instance from the manager") from None


def _retry_after(response: Response) -> int:
    text = response.field(b"retry-after") or b""
    return min(int(text), 3600) if text.isdigit() else RETRY_AFTER


def _reason(response: Response) -> str:
    try:
        detail = json.loads(response.body)["detail"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return detail if isinstance(detail, str) and len(detail) <= MAX_REASON and detail.isprintable() else ""
