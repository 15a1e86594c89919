"""Users who wait for an instance."""

import asyncio

from cloudtolocalllm.contracts.instances import Instance

MAX_ATTEMPTS = 2
"""Starts tried for one demand: a second mends a fork server or proxy that died just then; a third seldom helps."""


class CapacityError(Exception):
    """There is no place for another instance."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("expected a free place for another proxy, but all are taken")
        self.retry_after = retry_after
        """Seconds after which to try again."""


class StartFailedError(Exception):
    """The instance could not be started, or not in time. The text is for the log."""


class UnavailableError(StartFailedError):
    """No instance can be made for anybody now. The text says why and may be shown."""


class LeavingError(StartFailedError):
    """This manager does not take up anything any more; the one that follows it does."""

    def __init__(self) -> None:
        super().__init__("the manager ends")


class Demand:
    """One user's wait, shared by all callers who ask for that user."""

    __slots__ = ("attempts", "future")

    def __init__(self) -> None:
        self.future: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        # All callers may have gone when it fails; asyncio would then complain of an exception nobody saw.
        self.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.attempts = 0


class Demands:
    """The users who wait, in the order in which they asked; bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_user: dict[str, Demand] = {}

    def __contains__(self, user: str) -> bool:
        return user in self._by_user

    def __len__(self) -> int:
        return len(self._by_user)

    def users(self) -> tuple[str, ...]:
        """Return the users, the first to ask first."""
        return tuple(self._by_user)

    def join(self, user: str) -> Demand:
        """Return the user's demand, made if there is none.

        Raises:
            CapacityError: More users wait than instances can be.
        """
        demand = self._by_user.get(user)
        if demand is None:
            if len(self._by_user) >= self._limit:
                raise CapacityError(1.0)
            demand = self._by_user[user] = Demand()
        return demand

    def fulfil(self, user: str, instance: Instance) -> None:
        """Hand an instance to those who wait for it, if any do."""
        demand = self._by_user.pop(user, None)
        if demand is not None and not demand.future.done():
            demand.future.set_result(instance)

    def refuse(self, user: str, error: Exception) -> None:
        """Tell those who wait that it will not be."""
        demand = self._by_user.pop(user, None)
        if demand is not None and not demand.future.done():
            demand.future.set_exception(error)

    def failed(self, user: str) -> None:
        """Note a start that failed; after MAX_ATTEMPTS the demand is refused."""
        demand = self._by_user.get(user)
        if demand is None:
            return
        demand.attempts += 1
        if demand.attempts >= MAX_ATTEMPTS:
            self.refuse(user, StartFailedError(f"{demand.attempts} starts failed"))

    def refuse_all(self, error: Exception) -> None:
        """Tell everybody that it will not be."""
        for user in self.users():
            self.refuse(user, error)
