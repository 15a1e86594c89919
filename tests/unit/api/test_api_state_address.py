from pathlib import Path

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.state import StateError, open_state
from cloudtolocalllm.api.state.open import read_url
from cloudtolocalllm.api.state.redis_address import RedisAddress
from cloudtolocalllm.api.state.sqlite import SqliteState


def test_a_url_says_host_port_database_and_login() -> None:
    address = RedisAddress.parse("redis://us%40er:p%2Fw@redis.example.org:6380/7\n")
    assert (address.label, address.database, address.connection_class) == ("redis.example.org:6380", 7, Connection)
    options = address.connection_options(protocol=3)
    assert (options["host"], options["port"], options["db"]) == ("redis.example.org", 6380, 7)
    assert (options["username"], options["password"], options["protocol"]) == ("us@er", "p/w", 3)


def test_what_a_url_leaves_out_is_the_usual() -> None:
    address = RedisAddress.parse("redis://redis")
    assert (address.label, address.database) == ("redis:6379", 0)
    assert "password" not in address.options


def test_tls_trusts_the_machine_or_a_file(tmp_path: Path) -> None:
    address = RedisAddress.parse("rediss://redis")
    assert address.connection_class is SSLConnection
    (tmp_path / "ca.pem").write_text("")
    address = RedisAddress.parse(f"rediss://redis/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
    assert address.options["ssl_ca_certs"] == str(tmp_path / "ca.pem")


def test_a_socket_has_a_path() -> None:
    address = RedisAddress.parse("unix:///run/redis%20one.sock?db=2&password=secret")
    assert (address.label, address.database) == ("/run/redis one.sock", 2)
    assert address.connection_class is UnixDomainSocketConnection
    assert address.options["password"] == "secret"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "redis://",
        "redis://:secret@/0",
        "redis://:secret@host:port/0",
        "redis://:secret@host:99999/0",
        "redis://:secret@[::1/0",
        "redis://:secret@host/one",
        "redis://:secret@host/-1",
        "redis://:secret@host/65536",
        "redis://:secret@host/²",
        "redis://:secret@host/0?secret",
        "redis://:secret@host/0?retry_on_timeout=1",
        "redis://:secret@host/0?ssl_ca_certs=/etc/hosts",
        "rediss://:secret@host/0?ssl_cert_reqs=none",
        "rediss://:secret@host/0?ssl_check_hostname=no",
        "rediss://:secret@host/0?ssl_ca_certs=/nonexistent",
        "unix://?password=secret",
        "unix:///x?password=secret&db=x",
        "unix:///x?password=secret&host=other",
        "http://:secret@host",
    ],
)
def test_another_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StateError, match="expected ") as caught:
        RedisAddress.parse(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(RedisAddress.parse("redis://:secret@host"))


def test_a_setting_may_name_a_file_that_holds_the_url(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text(" redis://host/1\n")
    assert read_url(f"file:{path}") == "redis://host/1"
    assert read_url(f"file://{path}") == "redis://host/1"
    assert read_url(" redis://host/2 ") == "redis://host/2"
    assert read_url("") == ""


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
def test_a_file_without_a_url_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StateError, match="expected the URL of the state in"):
        read_url(f"file:{path}")


async def test_without_a_url_the_state_is_a_file(tmp_path: Path) -> None:
    state = await open_state("", tmp_path / "state.db", FakeClock())
    assert isinstance(state, SqliteState)
    await state.close()
    with pytest.raises(StateError):
        await open_state("http://host", tmp_path / "state.db", FakeClock())
