"""Which models the engine has, and which of them are in memory."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloudtolocalllm.runtime.clock import Clock

CLOUD_SUFFIX = "-cloud"
"""Tags that end so belong to models that Ollama passes on to its maker's servers."""


def full_name(name: str) -> str:
    """Return a model's name with its tag."""
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


@dataclass(slots=True)
class Model:
    """A model that the engine has."""

    name: str
    modified: float
    """Seconds since the epoch."""

    @property
    def digest(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes on disk, made up."""
        return 384 if self.remote else 1_234_567

    @property
    def remote(self) -> bool:
        """Whether Ollama would pass its prompts on to its maker's servers."""
        return self.name.endswith(CLOUD_SUFFIX)

    @property
    def details(self) -> dict[str, Any]:
        """What `/api/tags` and `/api/show` say of it."""
        return {
            "parent_model": "", "format": "scripted", "family": "scripted", "families": ["scripted"],
            "parameter_size": "0", "quantization_level": "none",
        }  # fmt: skip


@dataclass(slots=True)
class _Resident:
    expires: float
    """Monotonic seconds, inf for never."""
    timer: asyncio.TimerHandle | None


@dataclass(slots=True)
class _Load:
    timer: asyncio.TimerHandle
    waiters: dict["Wait", Callable[[], None]] = field(default_factory=dict)


class Wait:
    """A request that waits for a model; `cancel` when its client went away."""

    __slots__ = ("_model", "_residence", "nanoseconds", "since")

    def __init__(self, residence: "Residence", model: str, since: float) -> None:
        self._residence = residence
        self._model = model
        self.since = since
        self.nanoseconds = 0

    def cancel(self) -> None:
        """Wait no longer. As in Ollama, a load that nobody waits for any more is given up."""
        self._residence.forsake(self._model, self)


class Residence:
    """Loads models on demand and unloads them when they were idle for long enough."""

    def __init__(self, names: tuple[str, ...], clock: Clock) -> None:
        self._clock = clock
        self.models = {full_name(n): Model(full_name(n), clock.wall()) for n in names}
        self.loads = 0
        self.loads_aborted = 0
        self._residents: dict[str, _Resident] = {}
        self._loading: dict[str, _Load] = {}

    def find(self, name: str) -> Model | None:
        """Return the model of this name, with or without its tag."""
        return self.models.get(full_name(name))

    def add(self, name: str) -> None:
        """Have one more model."""
        self.models[full_name(name)] = Model(full_name(name), self._clock.wall())

    def remove(self, name: str) -> None:
        """Have it no longer."""
        self.unload(name)
        del self.models[full_name(name)]

    def loaded(self) -> list[tuple[Model, float]]:
        """Return the models in memory, and when each will be unloaded (seconds since the epoch)."""
        skew = self._clock.wall() - self._clock.monotonic()
        return [(self.models[n], min(r.expires + skew, 2**33)) for n, r in self._residents.items()]

    def load(self, name: str, seconds: float, then: Callable[[], None]) -> Wait:
        """Call `then` once the model is in memory, at once if it is."""
        name = full_name(name)
        wait = Wait(self, name, self._clock.monotonic())
        if name in self._residents:
            then()
            return wait
        load = self._loading.get(name)
        if load is None:
            self.loads += 1
            timer = asyncio.get_running_loop().call_later(seconds, self._loaded, name)
            load = self._loading[name] = _Load(timer)
        load.waiters[wait] = then
        return wait

    def keep(self, name: str, seconds: float) -> None:
        """Let a loaded model stay for so many seconds from now; negative for ever, 0 for not at all."""
        name = full_name(name)
        if seconds == 0 or name not in self.models:
            self.unload(name)
            return
        self._drop_timer(name)
        timer = None if seconds < 0 else asyncio.get_running_loop().call_later(seconds, self.unload, name)
        self._residents[name] = _Resident(self._clock.monotonic() + seconds if timer else float("inf"), timer)

    def unload(self, name: str) -> None:
        """Take it out of memory."""
        self._drop_timer(full_name(name))
        self._residents.pop(full_name(name), None)

    def forsake(self, model: str, wait: Wait) -> None:
        """Wait no longer for a load; see `Wait.cancel`."""
        load = self._loading.get(model)
        if load is not None and load.waiters.pop(wait, None) is not None and not load.waiters:
            load.timer.cancel()
            del self._loading[model]
            self.loads_aborted += 1

    def close(self) -> None:
        """Cancel every timer."""
        for name in self._residents:
            self._drop_timer(name)
        for load in self._loading.values():
            load.timer.cancel()

    def _loaded(self, name: str) -> None:
        load = self._loading.pop(name)
        self._residents[name] = _Resident(float("inf"), None)
        for wait, then in load.waiters.items():
            wait.nanoseconds = int((self._clock.monotonic() - wait.since) * 1e9)
            then()

    def _drop_timer(self, name: str) -> None:
        resident = self._residents.get(name)
        if resident is not None and resident.timer is not None:
            resident.timer.cancel()
