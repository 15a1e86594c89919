"""Exits with 0 when a service answers 200: `alive.py HOST:PORT|unix:PATH TARGET`, for a container's health check."""

import socket
import sys


def connected(place: str) -> socket.socket:
    """Return a connection; each step of it takes 3 s at most."""
    if not place.startswith("unix:"):
        host, _, port = place.rpartition(":")
        return socket.create_connection((host, int(port)), 3)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.settimeout(3)
    found.connect(place.removeprefix("unix:"))
    return found


def main() -> int:
    """Ask once."""
    place, target = sys.argv[1:3]
    host = "localhost" if place.startswith("unix:") else place.rpartition(":")[0]
    try:
        with connected(place) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return 0 if connection.recv(12) == b"HTTP/1.1 200" else 1
    except (OSError, ValueError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
