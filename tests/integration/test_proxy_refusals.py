"""What the proxy refuses, and how it says what failed."""

import asyncio
import base64
import json
import signal
import time

import pytest
from tests.support.link_parts import until
from tests.support.proxy_rig import KEY, Home, Reply, assertion, proxy_rig

from cloudtolocalllm.auth.assertion import BRIDGE, manager_token
from cloudtolocalllm.link import RefusedError
from cloudtolocalllm.tunnel import Limits, ResetReason, ResponseHead


def problem(reply: Reply) -> str:
    """The slug of a problem document."""
    assert reply.headers["content-type"] == "application/problem+json"
    document = json.loads(reply.body)
    assert document["status"] == reply.status
    assert document["detail"]
    return str(document["type"]).removeprefix("urn:c2l:problem:")


def hostile_jwt() -> str:
    parts = [{"alg": "none", "kid": "../../../../dev/null", "typ": "JWT"}, {"sub": "user-1", "exp": 2**40}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])


NOW = int(time.time())
FORGED = {
    "another key": assertion(key=bytes(32)),
    "expired": assertion(issued=NOW - 120, expires=NOW - 60),
    "from the future": assertion(issued=NOW + 3600, expires=NOW + 7200),
    "for a tunnel": assertion(kind=BRIDGE),
    "another proxy": assertion(instance="px-ffffffffffffffff"),
    "cut": assertion()[:-2],
    "a JWT with a kid": hostile_jwt(),
    "empty": "",
    "no dots": "v1",
    "long": "v1." + "A" * 5000 + ".B",
    "not base64": "v1.\xe9\xe9.\xe9",
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
async def test_an_assertion_that_does_not_hold_is_refused(token: str) -> None:
    async with proxy_rig() as rig:
        client = await rig.client()
        client.send(body=b"{}", token=token)
        reply = await client.reply()
        assert (reply.status, problem(reply)) == (401, "unauthenticated")
        assert b"MAC" not in reply.body, "the reason is for the log"
        client.send(body=b"{}")
        assert (await client.reply()).status == 503, "the connection goes on"
        assert rig.proxy.stats.streams_total == 1


async def test_no_assertion_and_two_assertions_are_refused() -> None:
    async with proxy_rig() as rig:
        client = await rig.client()
        assert (await client.get("/v1/models")).status == 401
        client.send("GET", "/v1/models", [("C2L-Assertion", assertion())])
        assert (await client.reply()).status == 401


async def test_a_proxy_is_one_users() -> None:
    async with proxy_rig() as rig:
        client = await rig.client()
        client.send("GET", "/v1/models", token=assertion(bridges=()))
        assert (await client.reply()).status == 503
        client.send("GET", "/v1/models", token=assertion(user="user-2"))
        assert (await client.reply()).status == 401


async def test_tunnels_need_an_assertion_of_their_kind() -> None:
    async with proxy_rig() as rig:
        client = await rig.client()
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
        client.send("GET", "/ws/tunnel", upgrade)
        assert (await client.reply()).status == 401
        client.send("GET", "/ws/tunnel", token=assertion(kind=BRIDGE))
        assert problem(await client.reply()) == "bad-request"
        client.send("GET", "/ws/tunnel", upgrade, token=assertion(kind=BRIDGE))
        status, _ = await client.head()
        assert status == 400, "no subprotocol was offered"


async def test_a_bridge_that_is_refused_stops_dialling() -> None:
    async with proxy_rig() as rig:
        client = await rig.client()
        client.send("GET", "/v1/models", token=assertion(bridges=(), user="somebody-else"))
        assert (await client.reply()).status == 503
        await rig.bridge(wait=False)
        with pytest.raises(RefusedError):
            await asyncio.wait_for(asyncio.shield(rig._tasks[0]), 5)
        rig._tasks.clear()


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Bearer ", f"Basic {manager_token(KEY)}"])
async def test_only_the_manager_may_ask_for_figures(token: str | None) -> None:
    async with proxy_rig() as rig:
        client = await rig.client()
        headers = [] if token is None else [("Authorization", token)]
        for target in ("/stats", "/healthz"):
            assert (await client.get(target, headers)).status == 401


async def test_what_names_no_path_is_refused() -> None:
    async with proxy_rig() as rig:
        client = await rig.client()
        client.send("OPTIONS", "*")
        assert problem(await client.reply()) == "bad-request"


async def test_no_bridge_paired_and_bridge_offline_are_told_apart() -> None:
    async with proxy_rig(attach_timeout=0.1) as rig:
        client = await rig.client()
        client.send(body=b"{}", token=assertion(bridges=()))
        assert problem(await client.reply()) == "no-bridge-paired"
        client.send(body=b"{}", headers=[("C2L-Exchange-Id", "named-by-the-client")])
        reply = await client.reply()
        assert problem(reply) == "bridge-offline"
        assert reply.headers["retry-after"] == "5"
        assert reply.headers["c2l-exchange-id"] == "named-by-the-client"
        await rig.bridge("office")
        client.send(body=b"{}")
        assert problem(await client.reply()) == "bridge-offline", "an attached bridge that may not serve it"
        assert rig.homes == []
        assert rig.proxy.stats.in_flight == 0


async def test_a_request_waits_for_its_bridge() -> None:
    async with proxy_rig(attach_timeout=10) as rig:
        client = await rig.client()
        content = b"x" * 300_000  # more than is read ahead
        client.send(body=content)
        await until(lambda: rig.proxy.bridges.waiting == 1)
        await rig.bridge()
        home = await rig.home()
        await asyncio.wait_for(home.done.wait(), 5)
        assert bytes(home.data) == content
        home.answer(200, (), b"ok")
        assert (await client.reply()).body == b"ok"


async def test_a_client_that_leaves_while_it_waits_is_forgotten() -> None:
    async with proxy_rig(attach_timeout=10) as rig:
        client = await rig.client()
        client.send(body=b"{}")
        await until(lambda: rig.proxy.bridges.waiting == 1)
        client.close()
        await until(lambda: rig.proxy.bridges.waiting == 0)
        assert rig.proxy.stats.in_flight == 0


async def test_the_best_attached_bridge_serves() -> None:
    async with proxy_rig() as rig:
        await rig.bridge("office")
        network = await rig.bridge("home")
        rig.on_request = lambda home: home.answer(204)
        client = await rig.client()
        both = assertion(bridges=("home", "office"))
        client.send("GET", "/v1/models", token=both)
        assert (await client.reply()).status == 204
        network.refusing = True
        network.cut()
        await until(lambda: rig.proxy.tunnels.attached_bridges() == ["office"])
        client.send("GET", "/v1/models", token=both)
        assert (await client.reply()).status == 204
        assert [home.bridge for home in rig.homes] == ["home", "office"]


@pytest.mark.parametrize(
    ("reason", "status", "slug"),
    [
        (ResetReason.CANCELLED, 502, "engine-error"),
        (ResetReason.REFUSED, 503, "overloaded"),
        (ResetReason.ENGINE_UNREACHABLE, 502, "engine-unreachable"),
        (ResetReason.ENGINE_ERROR, 502, "engine-error"),
        (ResetReason.TOO_LARGE, 413, "too-large"),
        (ResetReason.TIMED_OUT, 504, "timed-out"),
        (ResetReason.INTERNAL, 500, "internal"),
    ],
)
async def test_a_reset_before_the_answer_is_a_problem_and_later_a_cut(
    reason: ResetReason, status: int, slug: str
) -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        rig.on_request = lambda home: home.stream.reset(reason, "sunspots")
        client = await rig.client()
        client.send(body=b"{}")
        reply = await client.reply()
        assert (reply.status, problem(reply)) == (status, slug)
        assert b"sunspots" not in reply.body

        def late(home: Home) -> None:
            home.stream.send_head(ResponseHead(200))
            home.stream.send_data(b"part")

        rig.on_request = late
        client.send(body=b"{}")
        home = await rig.home(1)
        status_line = await client.head()
        assert status_line[0] == 200
        home.stream.reset(reason, "sunspots")
        with pytest.raises(asyncio.IncompleteReadError):
            async for _ in client.chunks("POST", Reply(200, status_line[1], b"")):
                pass
        assert rig.proxy.stats.in_flight == 0


async def test_a_refused_request_goes_to_another_bridge_with_its_content() -> None:
    async with proxy_rig() as rig:
        await rig.bridge("full")
        await rig.bridge("free")
        content = b"c" * 40_000

        def answer(home: Home) -> None:
            if len(rig.homes) == 1:
                home.stream.reset(ResetReason.REFUSED)

        rig.on_request = answer
        client = await rig.client()
        client.send(body=content, token=assertion(bridges=("full", "free")))
        home = await rig.home(1)
        await asyncio.wait_for(home.done.wait(), 5)
        assert bytes(home.data) == content
        home.answer(200, (), b"served")
        assert (await client.reply()).body == b"served"


async def test_an_answer_that_breaks_its_own_length_is_cut() -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        for content in (b"too long for this", b"shrt"):
            rig.on_request = lambda home, content=content: home.answer(  # type: ignore[misc] # a default, for the loop
                200, ((b"content-length", b"8"),), content
            )
            client = await rig.client()
            client.send(body=b"{}")
            reply = await client.reply()
            assert reply.cut
        rig.on_request = lambda home: home.answer(200, ((b"content-length", b"eight"),), b"12345678")
        client = await rig.client()
        client.send(body=b"{}")
        assert problem(await client.reply()) == "engine-error"


async def test_a_bridges_own_problem_passes_through() -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        document = b'{"type":"urn:c2l:problem:route-refused","status":403,"detail":"no"}'
        rig.on_request = lambda home: home.answer(403, ((b"content-type", b"application/problem+json"),), document)
        client = await rig.client()
        client.send(target="/ollama/api/create", body=b"{}")
        reply = await client.reply()
        assert (reply.status, problem(reply)) == (403, "route-refused")


async def test_an_answer_that_does_not_begin_in_time() -> None:
    async with proxy_rig(head_timeout=0.2) as rig:
        await rig.bridge()
        client = await rig.client()
        client.send(body=b"{}")
        assert problem(await client.reply()) == "timed-out"
        home = await rig.home()
        await until(lambda: home.reset is not None)
        assert home.reset is not None
        assert home.reset[0] is ResetReason.CANCELLED


async def test_a_bridge_that_stays_away() -> None:
    limits = Limits(resume_window=0.3)
    async with proxy_rig(limits=limits) as rig:
        network = await rig.bridge(limits=limits)
        waiting, streaming = await rig.client(), await rig.client()
        waiting.send(body=b"{}")
        await rig.home()
        streaming.send(body=b"{}")
        home = await rig.home(1)
        home.stream.send_head(ResponseHead(200))
        home.stream.send_data(b"half an ans")
        _, headers = await streaming.head()
        network.refusing = True
        network.cut()
        assert problem(await waiting.reply()) == "connection-lost"
        with pytest.raises(asyncio.IncompleteReadError):
            async for _ in streaming.chunks("POST", Reply(200, headers, b"")):
                pass
        assert rig.proxy.stats.in_flight == 0


async def test_more_requests_than_the_limit_are_refused() -> None:
    async with proxy_rig(max_in_flight=2) as rig:
        await rig.bridge()
        clients = [await rig.client() for _ in range(3)]
        for number, client in enumerate(clients[:2]):
            client.send(body=b"{}")
            await rig.home(number)
        clients[2].send(body=b"{}")
        reply = await clients[2].reply()
        assert problem(reply) == "overloaded"
        assert reply.headers["retry-after"] == "1"
        rig.homes[0].answer(204)
        assert (await clients[0].reply()).status == 204
        clients[2].send(body=b"{}")
        await rig.home(2)


async def test_an_answer_before_the_request_is_complete_frees_the_bridge() -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        rig.on_request = lambda home: home.answer(413, (), b"too large")
        client = await rig.client()
        client.send(headers=[("Content-Length", "1000000")])
        client.writer.write(b"x" * 1000)
        reply = await client.reply()
        assert (reply.status, reply.body) == (413, b"too large")
        await until(lambda: rig.proxy.tunnels.tunnels("home")[0].open_streams == 0)
        assert rig.proxy.stats.in_flight == 0


async def test_stopping_finishes_what_is_in_flight() -> None:
    async with proxy_rig(attach_timeout=10) as rig:
        await rig.bridge()
        waiting, streaming = await rig.client(), await rig.client()
        streaming.send(body=b"{}")
        home = await rig.home()
        waiting.send(body=b"{}", token=assertion(bridges=("absent",)))
        await until(lambda: rig.proxy.bridges.waiting == 1)
        closing = asyncio.get_running_loop().create_task(rig.proxy.close(5))
        assert problem(await waiting.reply()) == "bridge-offline"
        home.answer(200, (), b"finished")
        assert (await streaming.reply()).body == b"finished"
        await asyncio.wait_for(closing, 5)
        await asyncio.wait_for(rig._tasks[0], 5)


async def test_stopping_cuts_and_cancels_what_does_not_finish() -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        client = await rig.client()
        client.send(body=b"{}")
        home = await rig.home()
        await rig.proxy.close(0.1)
        await until(lambda: home.reset is not None)
        assert home.reset is not None
        assert home.reset[0] is ResetReason.CANCELLED


def test_the_process_stops_at_sigterm(tmp_path_factory: pytest.TempPathFactory) -> None:
    import os
    import subprocess
    import sys
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="c2l") as folder:
        path = Path(folder) / "p.sock"
        code = (
            "from cloudtolocalllm.proxy.service import main; from cloudtolocalllm.proxy.settings import *;"
            "from cloudtolocalllm.contracts.endpoint import Endpoint;"
            f"main(ProxySettings('px-1', bytes(32), Endpoint(path={str(path)!r}), drain=1.0))"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ))
        try:
            deadline = time.monotonic() + 10
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert path.stat().st_mode & 0o777 == 0o600
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=10)
        finally:
            process.kill()
        assert process.returncode == 0
        assert not path.exists()
        assert b"proxy stopped" in out
