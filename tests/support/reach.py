"""Who reaches whom, shown by exchanging bytes: a machine's way out may accept any connection."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.support.docker_engine import inside

OUTSIDE = ("198.51.100.1:80", "203.0.113.1:80", "169.254.169.254:80")
"""Nobody's (RFC 5737), and where clouds tell a machine its secrets."""
_ASK = """
import socket, sys, threading
def ask(address):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 1) as connection:
            connection.settimeout(1)
            connection.sendall(b"GET /healthz HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")
            outcome = "answered" if connection.recv(16) else "silent"
    except OSError as error:
        outcome = type(error).__name__
    sys.stdout.write(address + " " + outcome + "\\n")  # at once: the others write too
targets = sys.argv[1:]
while targets:  # some at a time: a container may have few threads
    threads = [threading.Thread(target=ask, args=(address,)) for address in targets[:8]]
    del targets[:8]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
"""


def answered(container: str, *targets: str) -> set[str]:
    """Return the addresses, as HOST:PORT, that gave a container an answer."""
    code, text = inside(container, _ASK, *targets)
    assert code == 0, text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert set(lines) == set(targets), text
    return {address for address, outcome in lines.items() if outcome == "answered"}


@contextlib.contextmanager
def host_listener() -> Iterator[int]:
    """Run a careless service of this machine, which listens everywhere and answers whoever writes; yield its port.

    It answers this machine at the end as well: that nobody reached it means nothing unless somebody could.
    """

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # no more of them: the end
            while True:
                # One that is silent or gone must not be the last.
                with listener.accept()[0] as connection, contextlib.suppress(OSError):
                    connection.settimeout(0.5)
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    with socket.create_server(("0.0.0.0", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
            assert answers_here("127.0.0.1", port), f"expected the listener at port {port} to answer to the end"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def answers_here(host: str, port: int) -> bool:
    """Return whether an address gives this machine an answer."""
    try:
        with socket.create_connection((host, port), 5) as connection:
            connection.settimeout(5)
            connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n")
            return bool(connection.recv(16))
    except OSError:
        return False


def own_address() -> str:
    """Return this machine's address on its way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the way
        return str(probe.getsockname()[0])
