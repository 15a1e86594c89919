"""What only Redis can do to us: keys without an expiry, going away, losing connections, refusing."""

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.fake_clock import FakeClock
from tests.support.redis_server import RedisServer, running_redis

from cloudtolocalllm.api.state import StateError, StateUnavailableError, open_state
from cloudtolocalllm.api.state.redis import MAX_CONNECTIONS, RedisState


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="c2l-") as name:
        yield Path(name)


@pytest.fixture
def server(folder: Path) -> Iterator[RedisServer]:
    with running_redis(folder) as server:
        yield server


@pytest.fixture
async def state(server: RedisServer) -> AsyncIterator[RedisState]:
    state = RedisState(server.url, timeout=1.0)
    yield state
    await state.close()


async def use_everything(state: RedisState) -> None:
    for ttl in (2, 50.5, 86_400 * 30):
        await state.put(f"value-{ttl}", b"1", ttl)
        await state.put(f"new-{ttl}", b"1", ttl, only_new=True)
        await state.replace(f"value-{ttl}", b"1", b"2", ttl)
        await state.add("group", f"m{ttl}", b"1", ttl)
        await state.add("emptied", f"m{ttl}", b"1", ttl, limit=9)
        await state.hit(f"rate-{ttl}", limit=3, window=ttl, cost=2)
        await state.hit(f"refused-{ttl}", limit=1, window=ttl, cost=2)
        await state.hit(f"asked-{ttl}", limit=1, window=ttl, cost=0)
    for ttl in (2, 50.5, 86_400 * 30):
        await state.remove("emptied", f"m{ttl}")
    await state.remove("group", "m2592000")
    await state.take("new-2")
    await state.members("group", "emptied", "none")
    await state.sweep()


async def test_every_key_has_an_expiry(state: RedisState, server: RedisServer) -> None:
    await use_everything(state)
    with redis.Redis.from_url(server.url) as client:
        lives = {key.decode(): client.pttl(key) for key in client.scan_iter("*")}
    assert len(lives) == 10  # 3 values, 2 new ones, 3 counters, a group's two
    assert all(key.startswith("c2l:") for key in lives)
    assert min(lives.values()) > 0
    assert lives["c2l:x:group"] == pytest.approx(50_500, abs=5_000), "as long as the member that lives longest"
    assert lives["c2l:g:group"] == pytest.approx(lives["c2l:x:group"], abs=100)
    assert lives["c2l:r:rate-50.5"] == pytest.approx(50_500 * 2 / 3, abs=5_000), "until it has leaked away"


async def test_nothing_is_left_when_its_time_is_over(state: RedisState, server: RedisServer) -> None:
    await state.put("a", b"1", 0.3)
    await state.add("g", "a", b"1", 0.2)
    await state.add("g", "b", b"1", 0.3)
    await state.hit("k", limit=1, window=0.3)
    await asyncio.sleep(0.5)
    with redis.Redis.from_url(server.url) as client:
        assert client.keys("*") == []


async def test_it_goes_away_and_comes_back(state: RedisState, server: RedisServer) -> None:
    await use_everything(state)
    server.stop()
    for call in (state.get("a"), state.take("a"), state.members("g"), state.hit("k", limit=1, window=9)):
        with pytest.raises(StateUnavailableError, match=f"expected an answer of Redis at 127.0.0.1:{server.port}"):
            await call
    server.start()
    assert await state.take("value-50.5") is None, "it keeps nothing, and a call that is not repeated works at once"
    await use_everything(state)  # with scripts that this server has not seen
    assert (await state.members("group"))[0].keys() == {"m2", "m50.5"}


async def test_one_that_does_not_answer_is_not_waited_for(server: RedisServer) -> None:
    state = RedisState(server.url, timeout=0.5)
    await state.put("a", b"1", 60)
    server.freeze()
    before = time.monotonic()
    calls = [state.get("a") for _ in range(3 * MAX_CONNECTIONS)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - before < 5
    for answer in answers:
        assert isinstance(answer, StateUnavailableError)
        assert "within 0.5 s" in str(answer)
    server.thaw()
    # no answer to a call that was given up is taken for another's, and no connection is lost to the pool
    for n in range(2 * MAX_CONNECTIONS):
        await state.put(f"k{n}", str(n).encode(), 60)
    found = await asyncio.gather(*(state.get(f"k{n}") for n in range(2 * MAX_CONNECTIONS)))
    assert found == [str(n).encode() for n in range(2 * MAX_CONNECTIONS)]
    await state.close()


async def test_a_cancelled_call_takes_no_others_answer(state: RedisState) -> None:
    for n in range(20):
        await state.put(f"k{n}", str(n).encode(), 60)

    async def impatient(n: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0003 * (n % 7)):
                await state.get(f"k{n % 20}")

    async def patient(n: int) -> None:
        assert await state.get(f"k{n % 20}") == str(n % 20).encode()

    async with asyncio.TaskGroup() as group:
        for n in range(300):
            group.create_task(impatient(n))
            group.create_task(patient(n))


class Cutter:
    """Stands before a Redis and cuts the connection on the first `cuts` requests with a word in them."""

    def __init__(self, target: int, word: bytes, *, answered: bool) -> None:
        self._target = target
        self._word = word
        self._answered = answered
        self.cuts = 1
        self.seen = 0
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> "Cutter":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            while data := await reader.read(65536):
                cut = False
                if self._word in data:
                    self.seen += 1
                    cut = self.seen <= self.cuts
                if cut and not self._answered:
                    return
                to_redis.write(data)
                answer = await from_redis.read(65536)
                if cut:
                    return
                writer.write(answer)
        finally:
            to_redis.close()
            writer.close()


@pytest.mark.parametrize("answered", [False, True])
async def test_what_can_be_asked_twice_is_when_a_connection_is_lost(server: RedisServer, answered: bool) -> None:
    calls: dict[bytes, tuple[Callable[[RedisState], Any], Any]] = {
        b"GET": (lambda s: s.get("a"), None),
        b"SET": (lambda s: s.put("b", b"1", 60), True),
        b"EVAL": (lambda s: s.add("g", "m", b"1", 60, limit=1), True),
        b"c2l:x:g": (lambda s: s.members("g"), [{"m": b"1"}]),
        b"c2l:r:k": (lambda s: s.hit("k", limit=1, window=60, cost=0), ...),
    }
    for word, (call, expected) in calls.items():
        async with Cutter(server.port, word, answered=answered) as cutter:
            state = RedisState(cutter.url)
            found = await call(state)
            assert expected in (..., found)
            assert cutter.seen >= 2
            await state.close()


@pytest.mark.parametrize("answered", [False, True])
async def test_what_happens_once_is_asked_once(server: RedisServer, state: RedisState, answered: bool) -> None:
    calls: dict[bytes, Callable[[RedisState], Any]] = {
        b"GETDEL": lambda s: s.take("a"),
        b"NX": lambda s: s.put("n", b"1", 60, only_new=True),
        b"DEL": lambda s: s.delete("d"),
        b"c2l:k:r": lambda s: s.replace("r", b"1", b"2", 60),
        b"c2l:x:g": lambda s: s.remove("g", "m"),
        b"c2l:r:k": lambda s: s.hit("k", limit=1, window=60),
    }
    await state.replace("r", b"", b"", 60)  # so that Redis knows the scripts
    await state.remove("g", "m")
    await state.hit("other", limit=1, window=60)
    for word, call in calls.items():
        async with Cutter(server.port, word, answered=answered) as cutter:
            cut = RedisState(cutter.url)
            with pytest.raises(StateUnavailableError, match="got ConnectionError"):
                await call(cut)
            assert cutter.seen == 1
            await cut.close()
    assert (await state.put("n", b"2", 60, only_new=True)) is not answered


async def test_a_refusal_is_told_without_what_was_sent(server: RedisServer, state: RedisState) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(StateUnavailableError, match="refused with OutOfMemoryError") as caught:
            await state.put("a", b"secret", 60)
        client.config_set("maxmemory", "0")
    assert "secret" not in str(caught.value)


async def test_a_password_and_a_database_come_by_the_url(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_redis(folder, options=("--requirepass", "pass/word")) as server:
        for url in (
            f"redis://:pass%2Fword@127.0.0.1:{server.port}/3",
            f"redis://default:pass%2Fword@127.0.0.1:{server.port}?db=3",
            f"unix://{server.socket}?db=3&password=pass%2Fword",
        ):
            state = RedisState(url)
            await state.check()
            await state.put("a", url.encode(), 60)
            await state.close()
        with redis.Redis(port=server.port, password="pass/word", db=3) as client:
            assert client.keys() == [b"c2l:k:a"]
        for url in (server.url, f"redis://:wrong@127.0.0.1:{server.port}/0"):
            with pytest.raises(StateError, match="to accept the URL's password") as caught:
                await open_state(url, folder / "state.db", FakeClock())
            assert "wrong" not in str(caught.value)
    assert "pass/word" not in caplog.text


async def test_the_url_comes_from_a_file(server: RedisServer, folder: Path) -> None:
    secret = folder / "url"
    secret.write_text(server.url + "\n")
    state = await open_state(f"file:{secret}", folder / "state.db", FakeClock())
    assert isinstance(state, RedisState)
    await state.put("a", b"1", 60)
    await state.close()
    assert not (folder / "state.db").exists()


async def test_one_that_forgets_is_refused(server: RedisServer, state: RedisState) -> None:
    await state.check()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        await state.check()  # it is never full
        client.config_set("maxmemory", "100mb")
        with pytest.raises(StateError, match=r"expected maxmemory-policy noeviction .*, got allkeys-lru"):
            await state.check()


async def test_one_that_is_away_is_opened_and_waited_for_later(
    server: RedisServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    with caplog.at_level(logging.WARNING):
        state = await open_state(server.url, folder / "state.db", FakeClock())
    assert "does not answer yet" in caplog.text
    server.start()
    assert await state.put("a", b"1", 60)
    await state.close()


def certificate(folder: Path) -> None:
    """Write cert.pem, its own issuer, for 127.0.0.1, and key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    encoding, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, format_, serialization.NoEncryption()))


async def test_tls_is_verified(folder: Path) -> None:
    certificate(folder)
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    with running_redis(folder, options=("--tls-cert-file", cert, "--tls-key-file", key)) as server:
        with redis.Redis.from_url(server.url) as client:  # from now on TLS at its port, and nothing in the clear
            client.config_set("tls-ca-cert-file", cert)
            client.config_set("tls-auth-clients", "no")
            client.config_set("port", "0")
            client.config_set("tls-port", str(server.port))
        trusting = RedisState(f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={cert}")
        assert await trusting.put("a", b"1", 60)
        assert await trusting.get("a") == b"1"
        await trusting.close()
        doubting = RedisState(f"rediss://127.0.0.1:{server.port}/0")
        with pytest.raises(StateUnavailableError, match="got ConnectionError"):
            await doubting.get("a")
        await doubting.close()
