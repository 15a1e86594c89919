"""Who was the first to sign in, and so is the administrator where no claim names one."""

from cloudtolocalllm.api.oidc.policy import Person, Policy
from cloudtolocalllm.api.state import State

KEY = "admin"
TTL = 365 * 24 * 3600.0
"""Seconds since the administrator's last sign-in after which the place is free again: nothing is kept for ever."""


class Admins:
    """Knows administrators."""

    def __init__(self, state: State, policy: Policy) -> None:
        """Make it.

        Args:
            state: Where the first one is kept.
            policy: Whether there is such a one.
        """
        self._state = state
        self._policy = policy

    async def is_one(self, user: str, person: Person) -> bool:
        """Tell whether somebody is an administrator already.

        Raises:
            StateUnavailableError: The state does not answer.
        """
        if not self._policy.admin.first:
            return person.admin
        own = user.encode()
        return await self._state.replace(KEY, own, own, TTL)  # which also renews it

    async def become(self, user: str) -> bool:
        """Make somebody the administrator if the first is and nobody was before; of two at once, one becomes it.

        Raises:
            StateUnavailableError: The state does not answer.
        """
        return self._policy.admin.first and await self._state.put(KEY, user.encode(), TTL, only_new=True)
