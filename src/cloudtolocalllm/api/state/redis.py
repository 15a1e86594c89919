"""The state of a cloud of several replicas: Redis 6.2 or later, or Valkey.

Every key has an expiry. Timeouts and lost connections are StateUnavailableError; what can be asked twice without
harm is asked once more over a new connection when one was lost. A Redis Cluster is not supported: `members` reads
several groups at once.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from cloudtolocalllm.api.state import checks, rate
from cloudtolocalllm.api.state import redis_scripts as scripts
from cloudtolocalllm.api.state.port import Hit, StateError, StateUnavailableError
from cloudtolocalllm.api.state.redis_address import RedisAddress

log = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Seconds for one operation, with connecting and waiting for a free connection."""
MAX_CONNECTIONS = 32
"""Of one process; more operations than that at once wait their turn."""
SWEEP = 1_000
"""Keys that one `sweep` looks at."""
OLDEST = (6, 2)
"""The first Redis with GETDEL."""

_VALUE = "c2l:k:"
_RATE = "c2l:r:"
_MEMBERS = "c2l:g:"
_EXPIRIES = "c2l:x:"


class RedisState:
    """See `State`. One object belongs to one event loop."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        """Prepare to connect; the first operation does.

        Args:
            url: See `RedisAddress.parse`.
            timeout: Seconds for one operation.

        Raises:
            StateError: The URL is none of ours.
        """
        self._address = address = RedisAddress.parse(url)
        self._timeout = timeout
        self._cursor = 0
        self._closed = False
        pool = BlockingConnectionPool(
            connection_class=address.connection_class,
            max_connections=MAX_CONNECTIONS,
            timeout=None,  # ours covers the wait
            **address.connection_options(protocol=2),
        )
        self._redis: Redis = Redis.from_pool(pool)

    async def check(self) -> None:
        """See that the store is one that keeps what it is given.

        Raises:
            StateError: It refuses us, is too old, or throws keys away before their time when it is full.
            StateUnavailableError: It does not answer.
        """
        try:
            found = await self._ask("INFO", again=True)
        except StateUnavailableError as error:
            if isinstance(error.__cause__, AuthenticationError):
                raise StateError(f"expected Redis at {self._address.label} to accept the URL's password") from None
            raise
        version = str(found.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < OLDEST:
            raise StateError(f"expected Redis 6.2 or later at {self._address.label}, got {version}")
        policy = found.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and found.get("maxmemory"):
            raise StateError(
                f"expected maxmemory-policy noeviction of Redis at {self._address.label}, got {policy}: "
                "when it is full it would forget revocations"
            )

    # values

    async def get(self, key: str) -> bytes | None:
        """See `State.get`."""
        checks.check_names(key)
        value: bytes | None = await self._ask("GET", _VALUE + key, again=True)
        return value

    async def put(self, key: str, value: bytes, ttl: float, *, only_new: bool = False) -> bool:
        """See `State.put`."""
        checks.check_names(key)
        checks.check_value(value)
        command = ("SET", _VALUE + key, value, "PX", _milliseconds(ttl))
        if only_new:
            return bool(await self._ask(*command, "NX", again=False))
        return bool(await self._ask(*command, again=True))

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        """See `State.replace`."""
        checks.check_names(key)
        checks.check_value(old)
        checks.check_value(new)
        return bool(await self._run(scripts.REPLACE, (_VALUE + key,), (old, new, _milliseconds(ttl)), again=False))

    async def take(self, key: str) -> bytes | None:
        """See `State.take`."""
        checks.check_names(key)
        value: bytes | None = await self._ask("GETDEL", _VALUE + key, again=False)
        return value

    async def delete(self, key: str) -> bool:
        """See `State.delete`."""
        checks.check_names(key)
        return bool(await self._ask("DEL", _VALUE + key, again=False))

    # groups

    async def add(self, group: str, member: str, value: bytes, ttl: float, *, limit: int | None = None) -> bool:
        """See `State.add`."""
        checks.check_names(group, member)
        checks.check_value(value)
        checks.check_members_limit(limit)
        values = (member, value, _milliseconds(ttl), "" if limit is None else limit)
        return bool(await self._run(scripts.ADD, _keys(group), values, again=True))

    async def remove(self, group: str, member: str) -> bytes | None:
        """See `State.remove`."""
        checks.check_names(group, member)
        value: bytes | None = await self._run(scripts.REMOVE, _keys(group), (member,), again=False)
        return value

    async def members(self, *groups: str) -> list[dict[str, bytes]]:
        """See `State.members`."""
        checks.check_names(*groups)
        if not groups:
            return []
        keys = [key for group in groups for key in _keys(group)]
        found = await self._run(scripts.MEMBERS, keys, (), again=True)
        return [{name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)} for flat in found]

    # rate counters

    async def hit(self, key: str, *, limit: int, window: float, cost: int = 1) -> Hit:
        """See `State.hit`."""
        checks.check_names(key)
        checks.check_rate(limit, window, cost)
        values = (limit, max(1, round(window * 1_000_000)), cost)
        allowed, used = await self._run(scripts.HIT, (_RATE + key,), values, again=not cost)
        return rate.answer(allowed=bool(allowed), used=float(used), limit=limit, window=window, cost=cost)

    # upkeep

    async def sweep(self) -> int:
        """See `State.sweep`: Redis expires its keys by itself; this erases members whose group lives on.

        Each call goes on where the last one stopped and looks at some SWEEP keys.
        """
        match = (_EXPIRIES + "*", "COUNT", SWEEP, "TYPE", "zset")
        cursor, found = await self._ask("SCAN", self._cursor, "MATCH", *match, again=True)
        self._cursor = int(cursor)
        keys = [key for name in found for key in _keys(name.decode().removeprefix(_EXPIRIES))]
        return int(await self._run(scripts.PRUNE, keys, (), again=True)) if keys else 0

    async def close(self) -> None:
        """See `State.close`."""
        self._closed = True
        await self._redis.aclose()

    async def _run(self, script: scripts.Script, keys: Sequence[str], values: Sequence[Any], *, again: bool) -> Any:
        try:
            return await self._ask("EVALSHA", script.sha, len(keys), *keys, *values, again=again)
        except NoScriptError:  # it did not run, so it can be sent again whatever it does
            return await self._ask("EVAL", script.text, len(keys), *keys, *values, again=again)

    async def _ask(self, *command: Any, again: bool) -> Any:
        """Run a command.

        Args:
            command: Its words.
            again: Whether it may be run twice, should the connection be lost on the way.

        Raises:
            StateUnavailableError: There was no answer in time, or a refusal.
            NoScriptError: Redis does not know the script.
        """
        if self._closed:
            raise StateUnavailableError("the state is closed")
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._send(command)
                except RedisConnectionError as error:
                    if not again or isinstance(error, AuthenticationError):
                        raise
                    return await self._send(command)
        except TimeoutError as error:
            text = f"expected an answer of Redis at {self._address.label} within {self._timeout:g} s"
            raise StateUnavailableError(text) from error
        except NoScriptError:
            raise
        except ResponseError as error:
            # Such as OutOfMemoryError or ReadOnlyError; its own text may repeat what was sent.
            text = f"Redis at {self._address.label} refused with {type(error).__name__}"
            raise StateUnavailableError(text) from None
        except (RedisError, OSError) as error:
            text = f"expected an answer of Redis at {self._address.label}, got {type(error).__name__}"
            raise StateUnavailableError(text) from error

    async def _send(self, command: Sequence[Any]) -> Any:
        return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's is not typed


def _keys(group: str) -> tuple[str, str]:
    return _MEMBERS + group, _EXPIRIES + group


def _milliseconds(ttl: float) -> int:
    checks.check_ttl(ttl)
    return math.ceil(ttl * 1000)
