"""``cloudtolocalllm proxy-forkserver``: forks proxies for the manager, which starts it and speaks on its input."""

import dataclasses
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

from cloudtolocalllm.cli.rehearsal import LIVES, rehearse
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.proxy import service
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.runtime import forkserver, logs, sharing
from cloudtolocalllm.runtime.http1 import HttpError

log = logging.getLogger(__name__)

LATER = ("uvloop", "asyncio.base_events", "asyncio.unix_events", "encodings.idna", "encodings.latin_1")
"""Modules that a proxy would otherwise import after the fork, each into memory of its own."""

_KNOWN = frozenset(field.name for field in dataclasses.fields(ProxySettings))
_LOG_HANDLER = service.log_handler()


def main() -> int:
    """Serve until the manager closes the connection; return the exit status."""
    handler = logs.handler_of("forkserver", sys.stderr)  # kept: a child that ended it would write to 30 more pages
    logs.use(handler, "INFO")
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
    values = {name: value for name, value in args.items() if name in _KNOWN}
    values["key"] = bytes.fromhex(values["key"])
    values["listen"] = Endpoint.parse(values["listen"])
    return ProxySettings(**values)


def _preload() -> None:
    for name in LATER:
        importlib.import_module(name)
    repacker = sharing.Repacker()
    handlers = logging.root.handlers[:]
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # nobody should read of a proxy that is none
            logs.use(logs.handler_of("proxy", nowhere), "INFO")
            repacker.watch()
            rehearse(settings_of)
            repacker.pack()
            for _ in range(LIVES):
                rehearse(settings_of)
    except* (HttpError, OSError, TimeoutError) as errors:
        log.error("the rehearsal failed: proxies will take more memory", exc_info=errors)  # noqa: TRY400 - a group
    finally:
        sys.setprofile(None)
        logging.root.handlers[:] = handlers


def _proxy(args: dict[str, Any]) -> None:
    service.main(settings_of(args), _LOG_HANDLER)


if __name__ == "__main__":
    os._exit(main())
