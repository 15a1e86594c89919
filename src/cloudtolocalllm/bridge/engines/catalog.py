"""Which engine answers a request."""

import asyncio
from collections.abc import Callable, Sequence

from cloudtolocalllm.auth.scopes import NO_SCOPE, KeyScope
from cloudtolocalllm.bridge.engines.answers import joined
from cloudtolocalllm.bridge.engines.engine import LIST_LIMIT, Engine
from cloudtolocalllm.bridge.guard import ApiFamily, Route
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.control import EngineState, EngineStatus
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import HttpError, Response, fetch

MERGE_TIMEOUT = 5.0
"""Seconds that each engine has to list its models."""
REFRESH_INTERVAL = 1.0
"""Seconds between two looks for a model that no engine listed, so that requests for a wrong name cost nothing."""


class Catalog:
    """The engines of this bridge."""

    def __init__(self, *, allow_cloud_models: bool, monotonic: Callable[[], float]) -> None:
        """Make a catalog with no engine.

        Args:
            allow_cloud_models: Whether models that run in Ollama's cloud may be used.
            monotonic: The clock, in seconds.
        """
        self.engines: list[Engine] = []
        self._allow_cloud_models = allow_cloud_models
        self._monotonic = monotonic
        self._refreshed = float("-inf")

    def add(self, engine: Engine) -> None:
        """Add an engine; those added earlier are preferred."""
        self.engines.append(engine)

    @property
    def statuses(self) -> tuple[EngineStatus, ...]:
        """What presence reports."""
        return tuple(engine.status for engine in self.engines)

    def serving(self, family: ApiFamily) -> list[Engine]:
        """Return the engines that have this API.

        Raises:
            RefusalError: There is none.
        """
        engines = [engine for engine in self.engines if engine.serves(family)]
        if engines:
            return engines
        if self.engines:
            raise RefusalError(Problem.NOT_FOUND, "No engine at home speaks this API; use /v1 instead.")
        raise RefusalError(
            Problem.ENGINE_UNREACHABLE,
            "No model engine was found at home; start Ollama, or give the bridge an engine's URL.",
        )

    def needs_model(self, route: Route) -> bool:
        """Whether the request's content must be read before an engine is chosen.

        With one engine that has no cloud models and does not load models on demand it can be streamed unread.
        """
        if not route.names_model:
            return False
        engines = self.serving(route.family)
        return len(engines) > 1 or engines[0].speaks_ollama

    async def choose(self, route: Route, models: Sequence[str]) -> list[Engine]:
        """Return the engines that can answer, best first.

        Args:
            route: Where the request leads.
            models: What it names; empty when nothing was read.

        Raises:
            RefusalError: There is none, or a model is not allowed.
        """
        engines = self.serving(route.family)
        if models and not all(any(e.has_model(model) for e in engines) for model in models):
            await self._refresh(engines)
        if not self._allow_cloud_models and any(e.is_cloud_model(model) for e in engines for model in models):
            raise RefusalError(
                Problem.ROUTE_REFUSED,
                "This model runs in Ollama's cloud; set allow_cloud_models in the bridge's settings to use it.",
            )
        return rank(engines, models[-1] if models else None)

    async def merged(self, route: Route, scope: KeyScope = NO_SCOPE) -> bytes:
        """Return the JSON answer that joins the lists of all engines of a family.

        Args:
            route: Which list.
            scope: Of who asks; models out of it are not listed.

        Raises:
            RefusalError: None of them answers.
        """
        engines = self.serving(route.family)
        answers = await asyncio.gather(*(self._listed(engine, route) for engine in engines))
        whole = [answer for answer in answers if answer is not None]
        if not whole:
            raise RefusalError(Problem.ENGINE_UNREACHABLE, "None of the engines at home answers; see that one runs.")
        return joined(whole, route.merged, scope)

    async def _listed(self, engine: Engine, route: Route) -> Response | None:
        try:
            target = engine.address.prefix + route.path
            return await fetch(
                engine.pool, "GET", target, engine.fields(), timeout=MERGE_TIMEOUT, max_content=LIST_LIMIT
            )
        except (HttpError, OSError, TimeoutError):
            return None

    async def _refresh(self, engines: list[Engine]) -> None:
        now = self._monotonic()
        if now - self._refreshed < REFRESH_INTERVAL:
            return
        self._refreshed = now
        await asyncio.gather(*(engine.refresh_models() for engine in engines if engine.up))


def rank(engines: list[Engine], model: str | None) -> list[Engine]:
    """Return the engines that can answer for a model, best first: those that are up before those that seem down.

    Raises:
        RefusalError: There are several, and none of them lists the model.
    """
    able = engines if model is None else [engine for engine in engines if engine.has_model(model)]
    if not able:
        # One engine alone knows best what it has: llama.cpp takes any name.
        if len(engines) > 1:
            raise RefusalError(Problem.MODEL_NOT_FOUND, "List the models to see which there are.")
        able = engines
    return sorted(able, key=lambda engine: engine.state is EngineState.DOWN)
