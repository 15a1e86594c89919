"""Our HTTP/1.1 against implementations by others, over real sockets."""

import asyncio
import contextlib
import http.client
import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from tests.support.http1_recorders import ClientCall
from tests.support.memory_transport import until

from cloudtolocalllm.runtime.http1 import (
    BadResponseError,
    Body,
    BodyKind,
    ConnectError,
    Headers,
    HttpServer,
    Pool,
    Request,
    Responder,
    fetch,
)
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY

BIG = bytes(range(256)) * 8192  # 2 MiB


class Echo:
    """Answers with the request's content, as it comes, with a trailer that says how much it was."""

    def __init__(self, request: Request, responder: Responder) -> None:
        self._responder = responder
        self._request = request
        self._size = 0
        self._started = False
        if request.path == "/refuse":
            responder.respond(413, (), b"too large")
            return
        if request.path == "/hints":
            responder.inform(103, ((b"link", b"</style.css>"),))

    def _start(self) -> None:
        if not self._started:
            self._started = True
            method = self._request.method.encode()
            self._responder.start(200, ((b"trailer", b"x-size"), (b"x-method", method)), CHUNKED)

    def on_body(self, data: bytes) -> None:
        self._start()
        self._size += len(data)
        self._responder.write(data)

    def on_body_end(self, trailers: Headers) -> None:
        if self._request.path != "/refuse":
            self._start()
            self._responder.end(((b"x-size", b"%d" % self._size), *trailers))

    def on_disconnect(self) -> None:
        pass

    def on_writable(self, writable: bool) -> None:
        if writable:
            self._responder.resume_body()
        else:
            self._responder.pause_body()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HttpServer(Echo)
    yield await server.listen_tcp("127.0.0.1", 0)
    await server.close(1)


async def curl(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-sv",
        "--http1.1",
        "--max-time",
        "20",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    return process.returncode or 0, out, err


async def test_curl(port: int) -> None:
    base = f"http://127.0.0.1:{port}"
    code, out, err = await curl(f"{base}/a", f"{base}/b", "--data-binary", "@-", stdin=b"hello")
    assert (code, out) == (0, b"hellohello")
    assert b"Re-using existing connection" in err
    _, out, _ = await curl(f"{base}/a", "--raw", "--data-binary", "@-", stdin=b"hello")
    assert out == b"5\r\nhello\r\n0\r\nx-size: 5\r\n\r\n"
    code, out, err = await curl(f"{base}/hints", "-I")
    assert code == 0
    assert b"103 Early Hints" in err


async def test_curl_uploads_chunked_with_expectation(port: int) -> None:
    code, out, err = await curl(
        f"http://127.0.0.1:{port}/",
        "-T",
        "-",
        "-H",
        "Expect: 100-continue",
        "-H",
        "Transfer-Encoding: chunked",
        stdin=BIG,
    )
    assert code == 0
    assert b"100 Continue" in err
    assert out == BIG


async def test_curl_reads_an_early_refusal(port: int) -> None:
    code, out, _ = await curl(
        f"http://127.0.0.1:{port}/refuse", "-H", "Expect:", "--data-binary", "@-", "-w", "%{http_code}", stdin=BIG
    )
    assert (code, out) == (0, b"too large413")


async def test_curl_http_1_0(port: int) -> None:
    code, out, _ = await curl(f"http://127.0.0.1:{port}/", "--http1.0", "--data-binary", "@-", stdin=b"hello")
    assert (code, out) == (0, b"hello")


async def test_http_client(port: int) -> None:
    def talk() -> list[tuple[int, bytes, str | None]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        answers = []
        with contextlib.closing(connection):
            for method, body in (("GET", None), ("POST", iter([b"a", b"bc"])), ("HEAD", None)):
                headers = {"Transfer-Encoding": "chunked"} if body else {}
                connection.request(method, "/", body, headers, encode_chunked=bool(body))
                response = connection.getresponse()
                answers.append((response.status, response.read(), response.getheader("X-Method")))
        return answers

    assert await asyncio.to_thread(talk) == [(200, b"", "GET"), (200, b"abc", "POST"), (200, b"", "HEAD")]


async def test_httpx_many_at_once(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        answers = await asyncio.gather(*(client.post(f"/{n}", content=BIG[: n * 1000]) for n in range(40)))
        assert all(answer.content == BIG[: n * 1000] for n, answer in enumerate(answers))
        streamed = b""
        async with client.stream("POST", "/", content=BIG) as response:
            async for piece in response.aiter_raw():
                streamed += piece
        assert streamed == BIG


# --- our client against others' servers ---


class Python(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/close":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"until the end")
            self.close_connection = True
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"cut")
            self.close_connection = True
        elif self.path == "/once":
            # Says that it keeps the connection, and does not.
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"once")
            self.close_connection = True
        else:
            self.send_response_only(100)
            self.end_headers()
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def python_server() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Python)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


async def test_fetch_from_http_server(python_server: int) -> None:
    pool = Pool(f"127.0.0.1:{python_server}")
    for _ in range(3):
        answer = await fetch(pool, "GET", "/", timeout=10)
        assert (answer.status, answer.body) == (200, b"ok")
        assert pool.idle == 1
    assert (await fetch(pool, "POST", "/", content=BIG, timeout=20)).body == BIG
    assert (await fetch(pool, "GET", "/close", timeout=10)).body == b"until the end"
    with pytest.raises(BadResponseError, match="cut short"):
        await fetch(pool, "GET", "/cut", timeout=10)
    with pytest.raises(BadResponseError, match="shorter"):
        await fetch(pool, "POST", "/", content=BIG, timeout=20, max_content=1000)
    for _ in range(5):  # whenever the server closes the idle connection, the next request goes through
        assert (await fetch(pool, "GET", "/once", timeout=10)).body == b"once"
    await pool.close()


async def test_client_against_uvicorn(tmp_path: Path) -> None:
    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        assert callable(receive)
        assert callable(send)
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")]})
        more = True
        while more:
            message = await receive()
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
            more = message.get("more_body", False)
        await send({"type": "http.response.body"})

    path = tmp_path / "s"
    server = uvicorn.Server(uvicorn.Config(app, uds=str(path), log_level="error", lifespan="off", ws="none"))
    serving = asyncio.get_running_loop().create_task(server.serve())
    await until(lambda: server.started)
    pool = Pool(f"unix:{path}")
    connection = await pool.acquire()
    call = ClientCall()
    exchange = connection.request("POST", "/", ((b"host", b"h"),), CHUNKED, call)
    for at in range(0, len(BIG), 60_000):
        exchange.write(BIG[at : at + 60_000])
        await asyncio.sleep(0)
    exchange.end()
    await until(lambda: call.trailers is not None or call.error)
    assert call.framing == Body(BodyKind.CHUNKED)
    assert bytes(call.body) == BIG
    assert pool.idle == 1
    await pool.close()
    server.should_exit = True
    await asyncio.wait_for(serving, 10)


async def test_no_connection(tmp_path: Path) -> None:
    for endpoint in (f"unix:{tmp_path}/none", "127.0.0.1:1"):
        with pytest.raises(ConnectError):
            await fetch(Pool(endpoint), "GET", "/", timeout=5)


# --- both ends ours ---


async def test_back_pressure_reaches_from_a_stalled_reader_to_the_writer(tmp_path: Path) -> None:
    """Nobody's buffer grows beyond its high-water mark and what the kernel takes."""
    writable: list[bool] = []
    responders: list[Responder] = []

    class Watched(Echo):
        def on_writable(self, writable_now: bool) -> None:
            writable.append(writable_now)

    def app(request: Request, responder: Responder) -> Watched:
        responders.append(responder)
        return Watched(request, responder)

    path = tmp_path / "s"
    server = HttpServer(app)
    await server.listen_unix(str(path))
    pool = Pool(f"unix:{path}")
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        connection = await pool.acquire()
        call = ClientCall()
        exchange = connection.request("POST", "/", ((b"host", b"h"),), CHUNKED, call)
        exchange.write(b"!")
        await until(lambda: call.status)
        exchange.pause_body()
        sent = 1
        while not writable and sent < 4_000_000:
            responders[0].write(b"x" * 10_000)
            sent += 10_000
            await asyncio.sleep(0)
        assert writable == [False]
        exchange.resume_body()
        await until(lambda: len(call.body) >= sent)
        assert writable == [False, True]
        exchange.abort()
    finally:
        await pool.close()
        await server.close(1)
    assert not path.exists()


async def test_a_connection_that_ends_reusable_comes_back_by_itself(port: int) -> None:
    pool = Pool(f"127.0.0.1:{port}", max_idle=2, idle_timeout=0.05)
    calls = []
    for _ in range(3):
        connection = await pool.acquire()
        call = ClientCall()
        connection.request("GET", "/", ((b"host", b"h"),), NO_BODY, call).end()
        calls.append(call)
    await until(lambda: all(call.trailers for call in calls))
    assert pool.idle <= 2
    await until(lambda: not pool.idle)
    await pool.close()
