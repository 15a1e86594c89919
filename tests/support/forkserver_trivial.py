"""A fork server whose children are as small as can be: HTTP that answers /healthz and /stats, for driver tests.

Run as a program; knobs come as its arguments: "deaf" children never listen, "brittle" ones end at once.
"""

import asyncio
import logging
import os
import sys
from typing import Any

from cloudtolocalllm.runtime import forkserver


def child(args: dict[str, Any]) -> None:
    if "brittle" in sys.argv:
        raise SystemExit(3)
    if "deaf" in sys.argv:
        import signal

        signal.pause()
    asyncio.run(_serve(args["listen"].removeprefix("unix:")))


async def _serve(path: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = b'{"in_flight": 0, "last_activity": 0, "bridges": [], "streams_total": 0}'
        if b"/env" in head:
            body = repr(dict(os.environ)).encode()
        if b"/allocate" in head:
            try:
                body = b"got %d" % len(bytearray(2**30))
            except MemoryError:
                body = b"refused"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    forkserver.run(forkserver.control_socket(), lambda: None, child, name="c2l-trivial")
