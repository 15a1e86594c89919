"""Free TCP ports below the range of client ports, so that no outgoing connection can take one meanwhile."""

import random
import socket

FIRST, LAST = 20_000, 32_000


def free_port() -> int:
    """Return a port on which nothing listens on 127.0.0.1 now."""
    for _ in range(200):
        port = random.SystemRandom().randint(FIRST, LAST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"expected a free port between {FIRST} and {LAST}")
