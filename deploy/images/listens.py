"""Exits with 0 when something accepts connections at each HOST:PORT and answers HTTP in clear on the first."""

import os
import socket
import sys


def main() -> int:
    """Look once, within 3 s each."""
    name = os.environ.get("C2L_EDGE_DOMAIN") or "localhost"  # noqa: TID251 - stands alone
    try:
        for number, place in enumerate(sys.argv[1:]):
            host, _, port = place.rpartition(":")
            with socket.create_connection((host, int(port)), 3) as connection:
                if number == 0:
                    request = f"GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
                    connection.sendall(request.encode())
                    if not connection.recv(9).startswith(b"HTTP/1.1 "):
                        return 1
    except (OSError, ValueError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
