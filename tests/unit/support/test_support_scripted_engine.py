"""The engine whose bytes a test decides."""

import asyncio

from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine


async def test_a_client_that_is_gone_is_noticed_by_writing_too() -> None:
    async def answer(asked: Asked) -> None:
        raise ConnectionResetError  # as `drain` does, mostly after reading has told of it, but not always

    async with scripted_engine(answer=answer) as engine:
        _, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        writer.write(b"GET /anything HTTP/1.1\r\nhost: a\r\n\r\n")
        await until(lambda: bool(engine.asked) and engine.asked[0].gone.is_set())
        writer.close()
        await writer.wait_closed()
