"""A network of its own for each proxy, out of one pool of addresses."""

import logging
from collections.abc import Mapping
from ipaddress import IPv4Network

from cloudtolocalllm.manager.drivers.base import DriverError, InstanceSpec
from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.manager.drivers.docker.engine import FORBIDDEN, Engine, RefusedError
from cloudtolocalllm.manager.drivers.docker.spec import DockerConfig

log = logging.getLogger(__name__)

MAX_TRIES = 32
"""Subnets tried for one network: others on this engine may have taken some of the pool."""


class Networks:
    """Hands out subnets and lets nginx and the manager into them."""

    def __init__(self, engine: Engine, config: DockerConfig) -> None:
        self._engine = engine
        self._config = config
        self._taken: dict[str, IPv4Network] = {}
        self._foreign: set[IPv4Network] = set()
        self._next = 0
        self._members: set[str] = set()
        """The containers that are let in, as last seen."""

    def subnet(self, instance: str) -> IPv4Network | None:
        """Return an instance's network; None when it has none."""
        return self._taken.get(instance)

    def found(self, instance: str, subnet: str) -> None:
        """Note a network that is there."""
        try:
            self._taken[instance] = IPv4Network(subnet)
        except ValueError:
            log.warning("a proxy's network has no subnet of ours", extra={"id": instance})

    async def make(self, manager: str, spec: InstanceSpec) -> IPv4Network:
        """Make an instance's network and let the others in.

        Raises:
            DriverError: The pool is used up, or the engine does not make it.
        """
        for _ in range(MAX_TRIES):
            subnet = self._pick()
            self._taken[spec.id] = subnet
            try:
                await self._engine.create_network(specs.network(manager, spec, subnet))
            except RefusedError as error:
                if error.status == FORBIDDEN and "overlaps" in str(error):
                    self._foreign.add(subnet)  # another's on this host; not to be tried again
                    continue
                raise
            # Read after the network was made: whoever came meanwhile was either seen by `let_in`, which then found
            # the network, or is among these.
            for container in sorted(self._members):
                await self._engine.connect(specs.network_name(spec.id), container)
            return subnet
        raise DriverError(f"expected a free subnet in {self._config.subnets}, but {MAX_TRIES} in a row are taken")

    async def let_in(self) -> None:
        """Let the containers of the settings into every network that they are not in, as after they were replaced."""
        inside: dict[str, set[str]] = {}
        for place in self._config.attach:
            found = await self._engine.networks_of(specs.filters_of(place))
            if not found:
                log.warning("nobody is there who is to be let into the networks", extra={"attach": place})
            inside.update(found)
        self._members = set(inside)
        for name in [specs.network_name(instance) for instance in self._taken]:
            for container, networks in inside.items():
                if name not in networks:
                    await self._engine.connect(name, container)

    def lets_in(self, name: str, labels: Mapping[str, str]) -> bool:
        """Return whether a container is one of those that are let in."""
        return any(specs.is_meant(place, name, labels) for place in self._config.attach)

    async def remove(self, instance: str) -> None:
        """Remove an instance's network. Without effect when it has none."""
        await self._engine.remove_network(specs.network_name(instance))
        self._taken.pop(instance, None)

    def _pick(self) -> IPv4Network:
        count = specs.subnets(self._config.subnets)
        used = {*self._taken.values(), *self._foreign}
        for _ in range(count):
            # Onward from the last one, so that an address is not somebody else's a moment later.
            subnet = specs.subnet(self._config.subnets, self._next % count)
            self._next += 1
            if subnet not in used:
                return subnet
        raise DriverError(f"expected a free subnet, but all {count} of {self._config.subnets} are taken")
