"""Exits with 0 when a service answers 200: `alive.py HOST:PORT TARGET`, for a container's health check."""

import socket
import sys


def main() -> int:
    """Ask once, within 3 s."""
    host, _, port = sys.argv[1].rpartition(":")
    request = f"GET {sys.argv[2]} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, int(port)), 3) as connection:
            connection.sendall(request.encode())
            return 0 if connection.recv(12) == b"HTTP/1.1 200" else 1
    except (OSError, ValueError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
