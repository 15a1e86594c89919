"""Runs and models."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from cloudtolocalllm.bridge.engines.engine import Engine
from cloudtolocalllm.bridge.home_api.home import ROUTES, Home
from cloudtolocalllm.bridge.home_api.messages import Caller, Nothing
from cloudtolocalllm.bridge.runs.prompt import RunOptions
from cloudtolocalllm.bridge.runs.pulls import Progress
from cloudtolocalllm.bridge.store.runs import NewRun, Run, RunState, TextKind
from cloudtolocalllm.contracts.control import EngineKind, EngineState


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run that is not there yet."""

    model: str
    parent: str
    """The message to answer."""
    options: RunOptions = field(default_factory=RunOptions)
    id: str | None = None


@dataclass(frozen=True, slots=True)
class RunText:
    """A piece of a run's text."""

    at: int
    """Bytes of UTF-8 before it, of all kinds of text together."""
    end: int
    """Bytes up to its end: the offset at which to go on."""
    kind: TextKind
    text: str


@dataclass(frozen=True, slots=True)
class RunEvent:
    """What happens in a run."""

    state: RunState
    text: RunText | None
    run: Run | None
    """The run once it has ended: the last event."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs that go on."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an engine at home has."""

    name: str
    engine: str
    kind: EngineKind
    state: EngineState
    """Of the engine."""
    loaded: bool
    """Whether it is in memory, as far as the engine tells."""
    cloud: bool
    """Whether the engine would only pass prompts on to somebody else's machines."""


@dataclass(frozen=True, slots=True)
class Models:
    """All models, and the pulls that go on or have lately ended."""

    models: tuple[Model, ...]
    pulls: tuple[Progress, ...]


@dataclass(frozen=True, slots=True)
class ModelName:
    """Names a model."""

    model: str


@ROUTES.add("POST", "/conversations/{conversation}/runs")
async def start_run(home: Home, caller: Caller, conversation: str, body: RunStart) -> Run:
    """Start an answer; it goes on whoever watches."""
    return await home.runs.start(NewRun(conversation, body.parent, body.model, id=body.id), body.options)


@ROUTES.add("GET", "/runs")
async def list_runs(home: Home, caller: Caller) -> Runs:
    """List the runs that go on."""
    return Runs(tuple(await home.runs.going_on()))


@ROUTES.add("GET", "/runs/{run}")
async def get_run(home: Home, caller: Caller, run: str) -> Run:
    """Tell how a run is."""
    return await home.runs.get(run)


@ROUTES.add("GET", "/runs/{run}/events")
async def watch_run(home: Home, caller: Caller, run: str, offset: int = 0) -> AsyncGenerator[RunEvent, None]:
    """Watch a run from an offset on until it has ended."""
    async for watched in home.runs.watch(run, offset):
        piece = watched.piece
        text = None if piece is None else RunText(piece.at, piece.end, piece.kind, piece.text)
        yield RunEvent(watched.state, text, watched.ended)


@ROUTES.add("POST", "/runs/{run}/stop")
async def stop_run(home: Home, caller: Caller, run: str) -> Run:
    """Stop a run; what was written so far is kept."""
    return await home.runs.stop(run)


@ROUTES.add("GET", "/models")
async def list_models(home: Home, caller: Caller) -> Models:
    """List the models of every engine, as they last listed them."""
    found = [_model(engine, known.name) for engine in home.catalog.engines for known in engine.models]
    return Models(tuple(found), tuple(home.models.pulls()))


def _model(engine: Engine, name: str) -> Model:
    cloud = engine.is_cloud_model(name)
    return Model(name, engine.id, engine.kind, engine.state, name in engine.loaded, cloud)


@ROUTES.add("POST", "/models/pull")
async def pull_model(home: Home, caller: Caller, body: ModelName) -> AsyncGenerator[Progress, None]:
    """Pull a model, or watch the pull of it that goes on; it goes on whoever watches."""
    async for progress in home.models.pull(body.model).watch():
        yield progress


@ROUTES.add("POST", "/models/pull/stop")
async def stop_pull(home: Home, caller: Caller, body: ModelName) -> Progress:
    """Stop a pull; the engine keeps what it has for the next time."""
    pull = home.models.find(body.model)
    pull.stop()
    return pull.progress


@ROUTES.add("POST", "/models/delete")
async def delete_model(home: Home, caller: Caller, body: ModelName) -> Nothing:
    """Delete a model from its engine."""
    await home.models.delete(body.model)
    return Nothing()
