"""``cloudtolocalllm proxy-forkserver``: forks proxies for the manager, which starts it and speaks on its input."""

import asyncio
import dataclasses
import importlib
import logging
import os
import secrets
import sys
import tempfile
from typing import Any

from cloudtolocalllm.auth.assertion import manager_token
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.proxy import service
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.runtime import forkserver, logs
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch

log = logging.getLogger(__name__)

LATER = ("uvloop", "asyncio.base_events", "asyncio.unix_events", "encodings.idna", "encodings.latin_1")
"""Modules that a proxy would otherwise import after the fork, each into memory of its own."""

REHEARSAL_ROUNDS = 16
"""More than the eight runs after which code is rewritten."""
REHEARSAL_TIMEOUT = 10.0
"""Seconds, on a machine that is busy starting."""


def main() -> int:
    """Serve until the manager closes the connection; return the exit status."""
    logs.configure("forkserver", stream=sys.stderr)
    try:
        control = forkserver.control_socket()
    except OSError:
        sys.stderr.write(
            "cloudtolocalllm proxy-forkserver: expected a socket as standard input; the manager runs it\n"
        )
        return 2
    forkserver.run(control, _preload, _proxy, name="c2l-proxy")
    return 0


def settings_of(args: dict[str, Any]) -> ProxySettings:
    """Return a proxy's settings from the manager's words."""
    known = {field.name for field in dataclasses.fields(ProxySettings)}
    values = {name: value for name, value in args.items() if name in known}
    values["key"] = bytes.fromhex(values["key"])
    values["listen"] = Endpoint.parse(values["listen"])
    return ProxySettings(**values)


def _preload() -> None:
    for name in LATER:
        importlib.import_module(name)
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # nobody should read of a proxy that is none
    # Not on uvloop: libuv keeps a pipe for the life of the process, and a child closes what it inherits.
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(_rehearse())
    except* (HttpError, OSError, TimeoutError) as errors:
        log.error("the rehearsal failed: proxies will take more memory", exc_info=errors)  # noqa: TRY400 - a group
    finally:
        logging.root.setLevel(level)


async def _rehearse() -> None:
    """Run a proxy for a moment in this process.

    The interpreter rewrites code that has run a few times for the types it met (PEP 659), and fills caches: into
    shared pages when it happens here, into each child's own when it happens there. Measured: 0.6 MB a child.
    """
    with tempfile.TemporaryDirectory(prefix="c2l-") as folder:
        key = secrets.token_bytes(32)
        settings = ProxySettings(instance="px-rehearsal", key=key, listen=Endpoint(path=f"{folder}/http.sock"))
        stop = asyncio.Event()
        async with asyncio.timeout(REHEARSAL_TIMEOUT), asyncio.TaskGroup() as group:
            group.create_task(service.serve(settings, stop))
            try:
                await _ask(settings)
            finally:
                stop.set()


async def _ask(settings: ProxySettings) -> None:
    pool = Pool(str(settings.listen), max_idle=0)
    headers = ((b"authorization", b"Bearer " + manager_token(settings.key).encode()),)
    for _ in range(REHEARSAL_ROUNDS):
        await asyncio.sleep(0)
        for target in ("/healthz", "/stats"):
            await fetch(pool, "GET", target, headers, timeout=1.0)
    await pool.close()


def _proxy(args: dict[str, Any]) -> None:
    service.main(settings_of(args))


if __name__ == "__main__":
    os._exit(main())
