"""One model engine: its address, what it speaks and lists, and how it is."""

import logging
from collections.abc import Callable

from cloudtolocalllm.bridge.engines.address import EngineAddress
from cloudtolocalllm.bridge.engines.answers import (
    Model,
    is_loading,
    is_ours,
    ollama_models,
    ollama_version,
    openai_models,
)
from cloudtolocalllm.bridge.engines.known_holes import OLDEST_SOUND, holes_in
from cloudtolocalllm.bridge.guard import ApiFamily
from cloudtolocalllm.bridge.naming import canonical, is_cloud_model
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus
from cloudtolocalllm.runtime.http1 import Headers, HttpError, HttpLimits, Pool, Response, fetch

log = logging.getLogger(__name__)

CHECK_TIMEOUT = 4.0
"""Seconds for a small question about an engine's health; a busy engine answers it late."""
IDLE_TIMEOUT = 3.0
"""Seconds an idle connection is kept: below the 5 s after which llama.cpp and uvicorn close theirs, so that a request
does not meet a connection that is just being closed."""
LATE_IS_DOWN = 2
"""Checks in a row without an answer in time, after which an engine counts as down."""
OLLAMA_PORT = 11434
LIST_LIMIT = 4 * 1024 * 1024
"""Bytes of a list of models."""

_SPEAKS_OLLAMA = frozenset({EngineKind.OLLAMA, EngineKind.DEMO})


class Engine:
    """An engine. Its kind is guessed from the port until it has answered once."""

    def __init__(
        self,
        engine_id: str,
        address: EngineAddress,
        on_change: Callable[[], None],
        *,
        kind: EngineKind | None = None,
        connect_timeout: float = 5.0,
    ) -> None:
        """Make an engine of which nothing is known yet.

        Args:
            engine_id: Its name in presence reports; no address or model name.
            address: Where it is.
            on_change: Called when the state or kind changes.
            kind: None to find it out.
            connect_timeout: Seconds.
        """
        self.id = engine_id
        self.address = address
        self.kind = kind or (EngineKind.OLLAMA if address.port == OLLAMA_PORT else EngineKind.OPENAI)
        self.up = False
        self.models: tuple[Model, ...] = ()
        """As it last listed them; kept while it is down, so that a request finds the engine it belongs to."""
        self.loaded: set[str] = set()
        """Models of an Ollama that were in memory when last looked at."""
        self.pool = Pool(
            f"{address.authority}",
            idle_timeout=IDLE_TIMEOUT,
            connect_timeout=connect_timeout,
            limits=HttpLimits(),
            tls=address.tls,
        )
        self._identified = self._told = kind is not None
        self._late = 0
        self._on_change = on_change
        self._waiting = 0
        self._loading = False
        self._reported = self.state
        self._version = ""

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def speaks_ollama(self) -> bool:
        """Whether it has Ollama's native API."""
        return self.kind in _SPEAKS_OLLAMA

    def serves(self, family: ApiFamily) -> bool:
        """Whether requests of this family go to it; those it does not know after all it answers with 404."""
        return family is not ApiFamily.OLLAMA or self.speaks_ollama

    def has_model(self, model: str) -> bool:
        """Whether it listed this model."""
        name = canonical(model)
        return any(known.name in (name, model) for known in self.models)

    def is_cloud_model(self, model: str) -> bool:
        """Whether it would send this model's prompts on to Ollama's cloud."""
        return self.speaks_ollama and is_cloud_model(model, (m.name for m in self.models if m.remote))

    # --- how it is ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> EngineState:
        """What presence reports."""
        if self._waiting or self._loading:
            return EngineState.LOADING
        return EngineState.UP if self.up else EngineState.DOWN

    @property
    def status(self) -> EngineStatus:
        """Its entry in presence reports."""
        return EngineStatus(self.id, self.kind, self.state)

    def wait_began(self) -> None:
        """A request waits for a model that is being loaded."""
        self._waiting += 1
        self._report()

    def wait_ended(self) -> None:
        """The wait is over, one way or another."""
        self._waiting -= 1
        self._report()

    def answered(self) -> None:
        """It sent a response's head: it is up, whatever the last check said."""
        if not self.up:
            self.up = True
            self._report()

    def failed(self) -> None:
        """It could not be reached; what comes back on that port may be another one."""
        self.up = self._loading = False
        self._identified = self._told
        self._report()

    def _report(self) -> None:
        if (state := self.state) is not self._reported:
            log.info("engine state changed", extra={"engine": self.id, "state": state.value})
            self._reported = state
            self._on_change()

    # --- small questions ----------------------------------------------------------------------------------------

    def fields(self) -> Headers:
        """Return the header fields of our own questions."""
        fields = [(b"host", self.address.authority.encode()), (b"accept", b"application/json")]
        if self.address.authorization is not None:
            fields.append((b"authorization", self.address.authorization))
        return tuple(fields)

    async def ask(self, path: str, *, timeout: float = CHECK_TIMEOUT) -> Response:
        """GET one of its paths.

        Raises:
            HttpError: No connection, or no proper answer.
            TimeoutError: None within `timeout` seconds.
        """
        target = self.address.prefix + path
        return await fetch(self.pool, "GET", target, self.fields(), timeout=timeout, max_content=LIST_LIMIT)

    async def check(self) -> bool:
        """Look how it is and what it lists; return whether it is up."""
        try:
            up = await (self._check_ollama() if await self._knows_ollama() else self._check_openai())
        except TimeoutError:
            # One that is busy with a prompt may be late once.
            self._late += 1
            if self._late >= LATE_IS_DOWN:
                self.failed()
            return self.up
        except (HttpError, OSError):
            self.failed()
            return False
        self._late = 0
        self.up = up
        self._report()
        return up

    async def refresh_loaded(self, *, timeout: float = 0.3) -> bool:
        """Look which models an Ollama has in memory; return whether it said so in time."""
        try:
            listed = ollama_models(await self.ask("/api/ps", timeout=timeout))
        except (HttpError, OSError, TimeoutError):
            return False
        if listed is None:
            return False
        self.loaded = {model.name for model in listed}
        return True

    async def refresh_models(self) -> None:
        """Look what it lists now; what was known stays when it does not say."""
        try:
            if self.speaks_ollama:
                self._listed(ollama_models(await self.ask("/api/tags")))
            else:
                self._listed(openai_models(await self.ask("/v1/models")))
        except (HttpError, OSError, TimeoutError):
            return

    def _listed(self, models: tuple[Model, ...] | None) -> None:
        if models is not None:
            self.models = models

    async def _knows_ollama(self) -> bool:
        if self._identified:
            return self.speaks_ollama
        version = await self.ask("/api/version")
        if is_ours(version):
            raise HttpError("expected an engine, got a part of this platform")
        found = EngineKind.OPENAI
        if ollama_version(version) is not None and ollama_models(await self.ask("/api/tags")) is not None:
            found = EngineKind.OLLAMA
        self._identified = True
        if found is not self.kind:
            self.kind = found
            self._on_change()
        return self.speaks_ollama

    async def _check_ollama(self) -> bool:
        response = await self.ask("/api/version")
        version = ollama_version(response)
        if version is not None and version != self._version:
            self._version = version
            self._warn(version)
        self._listed(ollama_models(await self.ask("/api/tags")))
        await self.refresh_loaded(timeout=CHECK_TIMEOUT)
        self._loading = False
        return response.status == 200

    async def _check_openai(self) -> bool:
        # Only llama.cpp says on /health that it is loading; other engines answer 404 or 200 there.
        self._loading = is_loading(await self.ask("/health"))
        response = await self.ask("/v1/models")
        self._loading = self._loading or is_loading(response)
        if response.status in (401, 403):
            log.warning("the engine refuses our key; set one in engine_keys", extra={"engine": self.id})
        self._listed(openai_models(response))
        return response.status < 500

    def _warn(self, version: str) -> None:
        if self.kind is EngineKind.OLLAMA and (holes := holes_in(version)):
            log.warning(
                "this Ollama has known holes; update it",
                extra={
                    "engine": self.id,
                    "version": version,
                    "holes": ", ".join(hole.cve for hole in holes),
                    "update_to": ".".join(map(str, OLDEST_SOUND)),
                },
            )

    async def close(self) -> None:
        """Close its connections."""
        await self.pool.close()
