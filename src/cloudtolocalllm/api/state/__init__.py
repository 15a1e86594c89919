"""What the cloud remembers, all of it with an expiry: one port, an adapter for one machine and one for replicas."""

from cloudtolocalllm.api.state.open import open_bus as open_bus
from cloudtolocalllm.api.state.open import open_state as open_state
from cloudtolocalllm.api.state.port import Hit as Hit
from cloudtolocalllm.api.state.port import State as State
from cloudtolocalllm.api.state.port import StateError as StateError
from cloudtolocalllm.api.state.port import StateUnavailableError as StateUnavailableError
