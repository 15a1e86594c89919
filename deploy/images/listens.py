"""Exits with 0 when something accepts connections at each place; for a container's health check.

A place is HOST:PORT, of which the first must answer HTTP in clear, or `unix:PATH`, which must answer HTTP or hand out
ports (edge/ports).
"""

import os
import socket
import sys

SIGNS = (b"HTTP/1.1 ", b"c2l-ports")


def connected(place: str) -> socket.socket:
    """Return a connection within 3 s."""
    if not place.startswith("unix:"):
        host, _, port = place.rpartition(":")
        return socket.create_connection((host, int(port)), 3)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.settimeout(3)
    found.connect(place.removeprefix("unix:"))
    return found


def main() -> int:
    """Look once, within 3 s each."""
    name = os.environ.get("C2L_EDGE_DOMAIN") or "localhost"  # noqa: TID251 - stands alone
    try:
        for number, place in enumerate(sys.argv[1:]):
            with connected(place) as connection:
                if number == 0:
                    request = f"GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
                    if "ports" not in place:  # it speaks first, and takes no questions
                        connection.sendall(request.encode())
                    if not connection.recv(9).startswith(SIGNS):
                        return 1
    except (OSError, ValueError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
