"""Tells homes to stop what nobody waits for any more, also when they can be reached only later.

A home keeps in mind what it was told to stop, so that a stop may overtake its request.
"""

import asyncio
import logging
from typing import Final

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.home_client import InnerRequest, whole
from cloudtolocalllm.connect.household import HomeState
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.sealed import base64url

log = logging.getLogger(__name__)

MAYBE: Final = 60.0
"""Seconds for which a home is tried that may never have got the request."""
TRY: Final = 10.0
"""Seconds for one attempt."""


class Stops:
    """The stops under way."""

    def __init__(self, tasks: TaskSet, clock: Clock, deadline: float) -> None:
        """Make one.

        Args:
            tasks: Runs them.
            clock: For the deadline.
            deadline: Seconds for which a home that is away is tried.
        """
        self._tasks = tasks
        self._clock = clock
        self._deadline = deadline

    def stop(self, state: HomeState, exchange: bytes, *, begun: bool) -> None:
        """Have a home stop an exchange.

        Args:
            state: The home.
            exchange: Its id.
            begun: Whether its answer had begun; if not, the home may not know it yet.
        """
        try:
            self._tasks.start(self._stop(state, exchange, begun=begun), "stop")
        except RuntimeError:
            log.exception("too many stops wait; an answer may run on at home", extra={"home": state.home.id})

    async def wait(self, seconds: float) -> None:
        """Give those under way some time."""
        async with asyncio.timeout(seconds):
            while len(self._tasks):  # noqa: ASYNC110 - at the end of the process, once
                await asyncio.sleep(0.02)

    async def _stop(self, state: HomeState, exchange: bytes, *, begun: bool) -> None:
        request = InnerRequest("DELETE", f"/c2l/exchanges/{base64url.encode(exchange)}")
        until = self._clock.monotonic() + (self._deadline if begun else min(self._deadline, MAYBE))
        backoff = Backoff(first=0.1, maximum=5.0)
        while self._clock.monotonic() < until:
            try:
                async with asyncio.timeout(TRY):
                    if await self._ask(state, request) < 500:
                        return
            except (HomeError, TimeoutError) as error:
                if isinstance(error, HomeError) and error.fault is Fault.REFUSED:
                    return
            await asyncio.sleep(backoff.next())
        log.warning("a home could not be told to stop", extra={"home": state.home.id})

    async def _ask(self, state: HomeState, request: InnerRequest) -> int:
        answer = await state.client.ask(request, fresh=not state.up)
        try:
            head, _ = await whole(answer)
        finally:
            answer.close()
        return head.status
