"""What is set on connections' sockets."""

import asyncio
import socket

UNSENT = 128 * 1024
"""Bytes that the kernel takes of us before it has sent them. Linux otherwise takes up to 4 MB (tcp_wmem) for a client
that has stopped reading: memory that back-pressure does not see, and an answer that runs ahead of a stop."""
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def bound_unsent(transport: asyncio.BaseTransport) -> None:
    """Bound what waits in a connection's buffer for a peer that does not read, where the system can."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    if sock.family == getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT // 2)  # Linux doubles it (socket(7))
    elif _TCP_NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT)
