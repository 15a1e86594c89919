"""What the home API's handlers work with."""

from dataclasses import dataclass

from cloudtolocalllm.bridge.engines.catalog import Catalog
from cloudtolocalllm.bridge.gateway.offers import PairingDesk
from cloudtolocalllm.bridge.home_api.routing import Routes
from cloudtolocalllm.bridge.keys import KeyList
from cloudtolocalllm.bridge.runs.desk import RunDesk
from cloudtolocalllm.bridge.runs.pulls import ModelDesk
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.runtime.clock import Clock

ROUTES = Routes()


@dataclass(frozen=True, slots=True)
class Home:
    """The parts of a home."""

    store: HomeStore
    runs: RunDesk
    models: ModelDesk
    catalog: Catalog
    keys: KeyList
    clock: Clock
    offers: PairingDesk
