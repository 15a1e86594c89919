"""``python -m cloudtolocalllm.proxy``: a proxy in a container of its own.

Its settings come from the environment and its key as one line on standard input, so that neither the engine's
description of the container nor any file shows it.
"""

import logging
import os
import sys
from collections.abc import Mapping

from cloudtolocalllm.proxy import service
from cloudtolocalllm.proxy.settings import PREFIX, ProxySettings
from cloudtolocalllm.runtime import logs
from cloudtolocalllm.runtime.settings import SettingsError, environment, load

MAX_KEY_LINE = 128
"""Bytes; a key has 64 digits."""


class LossyHandler(logging.Handler):
    """Writes lines to a descriptor, and drops them while nobody takes them.

    When the engine's daemon dies, nobody reads a container's output, and a pipe takes 64 KiB: a proxy that waited
    there would stop every stream.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self.setFormatter(logs.JsonFormatter("proxy"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line or lose it; of a line over 4 KiB (PIPE_BUF, pipe(7)) a part may be lost."""
        try:
            os.write(self._descriptor, self.format(record).encode() + b"\n")
        except OSError:
            return


def with_key(environ: Mapping[str, str], descriptor: int) -> dict[str, str]:
    """Return the environment with the key that is read from a descriptor, unless it is there already."""
    if PREFIX + "KEY" in environ:
        return dict(environ)
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_KEY_LINE:
        part = os.read(descriptor, MAX_KEY_LINE - len(line))
        if not part:
            break
        line += part
    return {**environ, PREFIX + "KEY": line.decode("ascii", "replace").strip()}


def main() -> int:
    """Run a proxy until it is told to stop; return the exit status."""
    try:
        settings = load(ProxySettings, PREFIX, with_key(environment(), 0))
    except SettingsError as error:
        sys.stderr.write(f"cloudtolocalllm proxy: {error}\n")
        return 2
    service.main(settings, LossyHandler(1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
