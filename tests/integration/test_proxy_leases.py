"""A proxy lets a bridge stay until its credential ends, and cuts it when the manager says so."""

import asyncio
import time
from collections.abc import Callable

import pytest
from tests.support.link_parts import until
from tests.support.proxy_rig import KEY, Client, Home, ProxyRig, assertion, proxy_rig

from cloudtolocalllm.auth.assertion import BRIDGE, manager_token
from cloudtolocalllm.link import DialTarget, RefusedError, Stream, TunnelClient
from cloudtolocalllm.proxy import leases
from cloudtolocalllm.tunnel import Limits, RequestHead, ResponseHead

MANAGER = ("Authorization", f"Bearer {manager_token(KEY)}")


async def cut(rig: ProxyRig, bridge: str, *headers: tuple[str, str], method: str = "POST") -> int:
    client = await rig.client()
    lines = [f"{method} /bridges/{bridge}/disconnect HTTP/1.1", "Host: proxy", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in headers or (MANAGER,)]
    client.writer.write("\r\n".join([*lines, "", ""]).encode())
    return (await client.reply()).status


async def test_a_cut_bridge_is_gone_at_once_and_the_others_stay() -> None:
    async with proxy_rig() as rig:
        await rig.bridge("home")
        await rig.bridge("other")

        def streaming(home: Home) -> None:
            home.stream.send_head(ResponseHead(200, ()))
            home.stream.send_data(b"first")

        rig.on_request = streaming
        client, second = await rig.client(), await rig.client()
        client.send(body=b"{}", token=assertion(bridges=("home",)))
        second.send(body=b"{}", token=assertion(bridges=("other",)))
        assert (await client.head())[0] == 200
        assert (await second.head())[0] == 200
        home = await rig.home()
        began = time.monotonic()
        assert await cut(rig, "home") == 204
        # Its answer is cut short, so that nobody takes it for a whole one; at home the engine is told to stop.
        rest = await asyncio.wait_for(client.reader.read(), 5)
        assert not rest.endswith(b"0\r\n\r\n")
        await until(lambda: home.reset is not None)
        assert time.monotonic() - began < 2.0
        assert rig.proxy.tunnels.attached_bridges() == ["other"]
        assert rig.proxy.tunnels.tunnels("home") == []
        async with asyncio.timeout(5):
            await rig._tasks[0]  # GOAWAY REVOKED: it does not dial again
        other = next(home for home in rig.homes if home.bridge == "other")
        other.stream.end()
        assert other.reset is None


async def test_a_cut_bridge_may_not_come_back_with_an_assertion_from_before() -> None:
    async with proxy_rig() as rig:
        await rig.bridge("home")
        assert await cut(rig, "home") == 204
        await rig.bridge("home", wait=False)
        with pytest.raises(RefusedError):
            await asyncio.wait_for(asyncio.shield(rig._tasks[1]), 5)
        rig._tasks.clear()
        await rig.bridge("other")


async def test_one_that_is_not_there_is_barred_all_the_same() -> None:
    async with proxy_rig() as rig:
        assert await cut(rig, "home") == 204
        await rig.bridge("home", wait=False)
        with pytest.raises(RefusedError):
            await asyncio.wait_for(asyncio.shield(rig._tasks[0]), 5)
        rig._tasks.clear()


async def test_only_the_manager_may_cut() -> None:
    async with proxy_rig() as rig:
        await rig.bridge("home")
        assert await cut(rig, "home", ("X-Nothing", "1")) == 401
        assert await cut(rig, "home", ("Authorization", "Bearer wrong")) == 401
        assert await cut(rig, "home", ("C2L-Assertion", assertion())) == 401
        assert await cut(rig, "home", method="GET") == 405
        assert await cut(rig, "home/..", MANAGER) == 404
        assert await cut(rig, "h%6fme", MANAGER) == 404
        assert rig.proxy.tunnels.attached_bridges() == ["home"]


async def test_what_is_remembered_of_cut_bridges_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MAX_BARRED", 3)
    async with proxy_rig() as rig:
        for number in range(6):
            assert await cut(rig, f"b{number}") == 204
        barred = rig.proxy.app._leases._barred
        assert list(barred) == ["b3", "b4", "b5"]


# --- until the credential ends -------------------------------------------------------------------------------------


class Renewing:
    """A bridge whose assertions end at times that a test sets."""

    def __init__(self, rig: ProxyRig, until: Callable[[], int]) -> None:
        self.dials = 0
        self._until = until
        self._rig = rig
        self.client = TunnelClient(self._target, self._accept, limits=Limits(resume_window=2.0))
        self.task = asyncio.get_running_loop().create_task(self.client.run())
        rig._tasks.append(self.task)

    async def _target(self) -> DialTarget:
        self.dials += 1
        token = assertion(kind=BRIDGE, bridges=(), subject="home", until=self._until())
        assert self._rig.endpoint.port is not None
        return DialTarget(f"ws://127.0.0.1:{self._rig.endpoint.port}/ws/tunnel", {"C2L-Assertion": token})

    def _accept(self, head: RequestHead, stream: Stream) -> Home:
        home = Home(head, stream)
        self._rig.homes.append(home)
        self._rig.on_request(home)
        return home


async def asked(rig: ProxyRig) -> tuple[Client, Home]:
    client = await rig.client()
    client.send(body=b"{}")
    return client, await rig.home()


async def test_with_a_renewed_credential_a_bridge_is_back_without_losing_a_stream() -> None:
    async with proxy_rig() as rig:
        first = int(time.time()) + 2
        bridge = Renewing(rig, lambda: first if bridge.dials == 1 else first + 1000)
        await until(lambda: rig.proxy.tunnels.attached_bridges() == ["home"])
        client, home = await asked(rig)
        home.stream.send_head(ResponseHead(200, ()))
        home.stream.send_data(b"before ")
        await client.head()
        await until(lambda: bridge.dials == 2, 5.0)
        home.stream.send_data(b"after")
        home.stream.end()
        chunks = b""
        async with asyncio.timeout(5):
            while size := int((await client.reader.readuntil(b"\r\n"))[:-2], 16):
                chunks += (await client.reader.readexactly(size + 2))[:-2]
        assert chunks == b"before after"
        assert len(rig.proxy.tunnels.tunnels("home")) == 1, "expected the session to be resumed"


async def test_without_one_its_tunnel_ends_in_time() -> None:
    async with proxy_rig(limits=Limits(resume_window=0.3)) as rig:
        end = int(time.time()) + 2
        Renewing(rig, lambda: end)
        await until(lambda: rig.proxy.tunnels.attached_bridges() == ["home"])
        [tunnel] = rig.proxy.tunnels.tunnels("home")
        await until(lambda: not tunnel.attached, 10.0)
        assert time.time() > end - 0.1, "expected it not to end early, but for the difference of two clocks"


async def test_a_credential_without_an_end_is_let_be() -> None:
    async with proxy_rig() as rig:
        await rig.bridge("home")
        assert rig.proxy.app._leases._ends == {}
