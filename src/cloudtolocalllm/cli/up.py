"""`cloudtolocalllm up`: every part on this machine, with one command."""

import asyncio
import json
import logging
import logging.handlers
import os
import secrets
import shutil
import signal
import socket
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.api.secrets import load_pseudonym_key, load_signing_ring
from cloudtolocalllm.auth.pseudonyms import owner_of
from cloudtolocalllm.bridge.engines.probe import WELL_KNOWN_PORTS, probe
from cloudtolocalllm.bridge.keys import KeyListError
from cloudtolocalllm.bridge.pairing import provision_local
from cloudtolocalllm.bridge.store.key_place import SETTING
from cloudtolocalllm.cli.keys import owner_key
from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.cli.lock import Lock, await_leftovers, record_processes
from cloudtolocalllm.cli.owner import make_local_link
from cloudtolocalllm.cli.supervisor import Part, PartFailedError, Supervisor
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch
from cloudtolocalllm.runtime.settings import environment

READY_TIMEOUT = 30.0
"""Seconds from the start to the first answer of every part."""
ENGINE_TIMEOUT = 10.0
"""Seconds from then until the bridge is connected."""
PORTS = range(8080, 8090)
"""Tried in turn when no port is asked for."""
HIGH_PORTS = range(20000, 32000)
"""For port 0: below the ports that systems give to clients, so that a restarted part finds its port free."""
PASSED_SETTINGS = ("OIDC_", "SIGN_UP", "ALLOW_", "GROUPS_CLAIM", "ADMIN", "USER_")
"""What the names of those settings of the API begin with that it gets from `up`'s own environment."""
KEYCHAIN_VARIABLES = ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")
"""What the bridge needs of `up`'s environment to find the session's keychain on Linux."""
NO_ENGINE = (
    f"No model engine was found on this machine (looked on the ports of {', '.join(WELL_KNOWN_PORTS.values())})."
)
HOW_TO_GET_ONE = """Get one: install Ollama from https://ollama.com/download, then run
    ollama pull llama3.2
and start again. Or name an engine of yours: --engine http://HOST:PORT"""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line asks for."""

    data_dir: Path
    port: int | None
    """None for the first free one of PORTS, 0 for any."""
    engines: tuple[str, ...]
    demo: bool
    """Use the scripted demo engine even where a real one is found."""
    no_demo: bool
    no_browser: bool
    as_json: bool
    warm: int
    web_root: Path | None


class UpError(Exception):
    """`up` cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The local owner's ways in."""

    sign_in: str
    """A link that signs in once."""
    api_key: str


async def up(options: UpOptions) -> int:
    """Start everything, say where it is, and stay until told to stop.

    Raises:
        UpError: It cannot start.
        cloudtolocalllm.cli.lock.AlreadyRunningError: Another process runs on this data directory.
    """
    layout = Layout(options.data_dir.absolute())
    layout.make()
    lock = Lock(layout)
    lock.acquire()
    try:
        await await_leftovers(layout.processes)
        return await _Up(options, layout, lock).run()
    finally:
        layout.processes.unlink(missing_ok=True)
        shutil.rmtree(layout.run, ignore_errors=True)
        lock.release()


class _Up:
    def __init__(self, options: UpOptions, layout: Layout, lock: Lock) -> None:
        self._options = options
        self._layout = layout
        self._lock = lock
        self._stop = asyncio.Event()
        self._log = _open_log(layout.log)
        self._supervisor = Supervisor(
            on_line=lambda line: self._log.emit(logging.makeLogRecord({"msg": "%s", "args": (line,)})),
            on_started=lambda pids: record_processes(layout.processes, pids),
        )
        self._port = _choose_port(options.port)
        self._url = f"http://127.0.0.1:{self._port}"

    async def run(self) -> int:
        engines = await self._engines()
        owner = await _provision(self._layout, self._url)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_stop)
        failure = ""
        try:
            async with asyncio.TaskGroup() as group:
                demo = await self._start_parts(engines)
                watch = group.create_task(self._supervisor.watch(), name="watch the parts")
                if await self._ready():
                    self._lock.tell(self._url)
                    self._announce(owner, engines, demo)
                    await self._stop.wait()
                watch.cancel()
        except* (PartFailedError, UpError) as errors:
            failure = _first(errors)
        finally:
            await self._supervisor.stop()
            self._log.close()
        if failure:
            raise UpError(failure + f"\nAll logs: {self._layout.log}")
        return 0

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            self._supervisor.kill()
        self._stop.set()

    # --- before the start -----------------------------------------------------------------------------------

    async def _engines(self) -> tuple[str, ...]:
        """Return the URLs of the engines to serve; empty for the demo engine."""
        if self._options.demo:
            return ()
        if self._options.engines:
            return self._options.engines
        found = await probe(WELL_KNOWN_PORTS)
        if not found and self._options.no_demo:
            raise UpError(f"{NO_ENGINE}\n{HOW_TO_GET_ONE}")
        return tuple(f"http://127.0.0.1:{port}" for port in found)

    # --- the parts ------------------------------------------------------------------------------------------

    async def _start_parts(self, engines: tuple[str, ...]) -> str:
        """Start every part and return the demo engine's URL, empty when there is none."""
        layout = self._layout
        manager, api = f"unix:{layout.run}/manager.sock", f"unix:{layout.run}/api.sock"
        start = self._start
        await start("manager", "C2L_MANAGER_", 10.0, listen=manager, service_keys=layout.service_keys / "public",
                    run_dir=layout.run, warm=self._options.warm, audit_dir=layout.audit / "manager",
                    audit_origin="localhost/manager")  # fmt: skip
        demo = ""
        if not engines:
            port = _choose_port(0)
            demo = f"http://127.0.0.1:{port}"
            await start("demo-engine", "C2L_DEMO_", 5.0, port=port)
        await start("bridge", "C2L_BRIDGE_", 10.0, server=self._url, credential_file=layout.bridge_credential,
                    engines=",".join(engines),
                    demo_engine=demo,
                    store_key=environment().get(SETTING, ""))  # fmt: skip
        web = self._options.web_root
        await start("edge", "C2L_EDGE_", 15.0, listen_port=self._port, api=api, audit_dir=layout.audit / "edge",
                    audit_origin="localhost/edge", **({"web_root": web} if web else {}))  # fmt: skip
        # Last, so that it stops first: it ends the pages' event streams and is not in the way of answers, for which
        # the edge then waits.
        await start("api", "C2L_API_", 10.0, listen=api, data_dir=layout.cloud, manager=manager,
                    service_keys=layout.service_keys, public_url=self._url,
                    audit_dir=layout.audit / "api", audit_origin="localhost/api",
                    **_passed_settings())  # fmt: skip
        return demo

    async def _start(self, name: str, prefix: str, stop_grace: float, /, **settings: object) -> None:
        environ = {prefix + key.upper(): str(value) for key, value in settings.items()}
        if name == "bridge":  # the home store's key may lie in the keychain
            environ |= {name: value for name, value in environment().items() if name in KEYCHAIN_VARIABLES}
        await self._supervisor.start(Part(name, environ, stop_grace, prefix + "LEASH_FD"))

    async def _ready(self) -> bool:
        """Wait until every part answers; False when told to stop before.

        Raises:
            UpError: They did not within READY_TIMEOUT; or the bridge did not connect within ENGINE_TIMEOUT.
        """
        pool = Pool(f"127.0.0.1:{self._port}", connect_timeout=2.0)
        host = ((b"host", f"127.0.0.1:{self._port}".encode()),)
        key = self._layout.owner_key.read_text().strip()
        signed = (*host, (b"authorization", f"Bearer {key}".encode()))
        try:
            await self._until(pool, "/readyz", host, b"", READY_TIMEOUT, "the parts were not ready")
            await self._until(
                pool,
                "/api/streaming/status",
                signed,
                b'"connected":true',
                ENGINE_TIMEOUT,
                "the bridge did not connect",
            )
        finally:
            await pool.close()
        return not self._stop.is_set()

    async def _until(
        self,
        pool: Pool,
        target: str,
        headers: tuple[tuple[bytes, bytes], ...],
        wanted: bytes,
        limit: float,
        what: str,
    ) -> None:
        deadline = asyncio.get_running_loop().time() + limit
        while not self._stop.is_set():
            try:
                response = await fetch(pool, "GET", target, headers, timeout=5.0)
                if response.status == 200 and wanted in response.body.replace(b" ", b""):
                    return
            except (HttpError, TimeoutError, OSError):
                pass
            if asyncio.get_running_loop().time() > deadline:
                raise UpError(f"{what} within {limit:.0f} s")
            await asyncio.sleep(0.03)

    # --- what people see ------------------------------------------------------------------------------------

    def _announce(self, owner: Owner, engines: tuple[str, ...], demo: str) -> None:
        sign_in = owner.sign_in
        if self._options.as_json:
            line = {
                "url": self._url,
                "sign_in_url": sign_in,
                "api_key": owner.api_key,
                "data_dir": str(self._layout.root),
                "pid": os.getpid(),
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
            return
        print(f"""
CloudToLocalLLM is ready.

  Page      {sign_in}
            (this link signs you in once, within the hour, and within ten minutes pairs this browser with this
            machine; a new one: cloudtolocalllm sign-in-link)
  OpenAI    OPENAI_BASE_URL={self._url}/v1  OPENAI_API_KEY={owner.api_key}
  Ollama    OLLAMA_HOST={self._url}/ollama  OLLAMA_API_KEY={owner.api_key}
  Engines   {", ".join(engines) if not demo else "none: the scripted DEMO engine answers, which is not a model"}
  Data      {self._layout.root}  (logs/up.log)
""")
        if demo:
            reason = "As asked with --demo, real engines are left aside." if self._options.demo else NO_ENGINE
            print(f"{reason}\n{HOW_TO_GET_ONE}\n")
        print("Ctrl-C stops.", flush=True)
        if not self._options.no_browser:
            webbrowser.open(sign_in)


def _first(errors: BaseExceptionGroup[Exception]) -> str:
    """Return the text of the first error itself: groups of tasks nest."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def _open_log(path: Path) -> logging.Handler:
    """Open the log of all parts: at most two files of 10 MB."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=1)
    path.chmod(0o600)
    return handler


async def _provision(layout: Layout, url: str) -> Owner:
    """Make what the owner and the local bridge need to come in; keep what an earlier start made."""
    clock = SystemClock()
    ring = load_signing_ring(layout.secrets)
    user = owner_of(load_pseudonym_key(layout.secrets))
    provision_local(layout.bridge_credential, ring, user=user, server=url, now=clock.wall())
    try:
        key = owner_key(layout, ring, user, clock)
    except KeyListError as error:
        raise UpError(str(error)) from None
    return Owner(await make_local_link(layout, url, user), key)


def _passed_settings() -> dict[str, str]:
    prefix = "C2L_API_"
    given = {name.removeprefix(prefix): value for name, value in environment().items() if name.startswith(prefix)}
    return {name.lower(): value for name, value in given.items() if name.startswith(PASSED_SETTINGS)}


def _choose_port(wanted: int | None) -> int:
    if wanted:
        if not _is_free(wanted):
            raise UpError(f"port {wanted} is in use; choose another with --port")
        return wanted
    if wanted == 0:
        for _ in range(100):
            port = secrets.choice(HIGH_PORTS)
            if _is_free(port):
                return port
    for port in PORTS:
        if _is_free(port):
            return port
    raise UpError(f"ports {PORTS.start} to {PORTS.stop - 1} are in use; choose another with --port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
