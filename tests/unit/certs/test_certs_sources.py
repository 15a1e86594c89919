"""Own files and the local authority, as sources."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.certs.local_ca import LocalCa
from cloudtolocalllm.certs.own import Own
from cloudtolocalllm.certs.policy import Life
from cloudtolocalllm.certs.source import SourceError
from cloudtolocalllm.certs.validate import Facts, Pair, check

NAMES = ("example.org", "*.example.org", "127.0.0.1", "localhost")
LIFE = Life(0.0, 1e12)


async def test_own_files_are_taken_at_once_when_nothing_is_deployed(tmp_path: Path) -> None:
    own = Own(tmp_path / "c", tmp_path / "k")
    with pytest.raises(SourceError, match="could not read your certificate"):
        await own.bring(None, None)
    (tmp_path / "c").write_bytes(b"c1")
    with pytest.raises(SourceError, match="could not read your key"):
        await own.bring(None, None)
    (tmp_path / "k").write_bytes(b"k1")
    assert await own.bring(None, None) == Pair(b"c1", b"k1")
    assert await own.bring(LIFE, Pair(b"c1", b"k1")) is None


async def test_a_replacement_is_taken_when_it_has_settled(tmp_path: Path) -> None:
    own, old = Own(tmp_path / "c", tmp_path / "k"), Pair(b"c1", b"k1")
    (tmp_path / "c").write_bytes(b"c1")
    (tmp_path / "k").write_bytes(b"k1")
    assert await own.bring(LIFE, old) is None
    (tmp_path / "c").write_bytes(b"c2")
    assert await own.bring(LIFE, old) is None
    (tmp_path / "k").write_bytes(b"k2")
    assert await own.bring(LIFE, old) is None
    assert await own.bring(LIFE, old) == Pair(b"c2", b"k2")


def checked(ca: LocalCa, pair: Pair, clock: FakeClock, names: tuple[str, ...] = NAMES) -> Facts:
    return check(pair, names, clock.wall(), roots=ca.roots(), strict=True)


async def made(ca: LocalCa) -> Pair:
    pair = await ca.bring(None, None)
    assert pair is not None
    return pair


async def test_the_local_authority_makes_what_is_fit(tmp_path: Path) -> None:
    clock = FakeClock()
    ca = LocalCa(tmp_path / "ca", NAMES, clock)
    assert ca.roots() == []
    pair = await made(ca)
    facts = checked(ca, pair, clock)
    assert facts.not_after == clock.now + 90 * 86_400
    assert (tmp_path / "ca" / "ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert str(ca.root_path) in ca.outlook().why


async def test_it_renews_when_due_by_the_same_root(tmp_path: Path) -> None:
    clock = FakeClock()
    ca = LocalCa(tmp_path / "ca", NAMES, clock)
    facts, root = checked(ca, await made(ca), clock), ca.roots()
    life = Life(facts.not_before, facts.not_after)
    assert await ca.bring(life, None) is None
    clock.advance(61 * 86_400)
    again = await LocalCa(tmp_path / "ca", NAMES, clock).bring(life, None)
    assert again is not None
    checked(ca, again, clock)
    assert ca.roots() == root


async def test_its_root_may_speak_for_these_names_only(tmp_path: Path) -> None:
    clock = FakeClock()
    ca = LocalCa(tmp_path / "ca", NAMES, clock)
    await made(ca)
    constraints = ca.roots()[0].extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    names = [str(name.value) for name in constraints.value.permitted_subtrees or []]
    assert names == ["example.org", "127.0.0.1/32", "localhost"]


async def test_other_names_and_a_root_near_its_end_make_a_new_root(tmp_path: Path) -> None:
    clock = FakeClock()
    ca = LocalCa(tmp_path / "ca", NAMES, clock)
    await made(ca)
    first = ca.roots()
    wider = LocalCa(tmp_path / "ca", ("example.net",), clock)
    checked(wider, await made(wider), clock, ("example.net",))
    second = wider.roots()
    assert second != first
    clock.advance(3600 * 86_400)
    checked(wider, await made(wider), clock, ("example.net",))
    assert wider.roots() != second


async def test_a_damaged_authority_is_told_and_not_replaced_in_silence(tmp_path: Path) -> None:
    ca = LocalCa(tmp_path / "ca", NAMES, FakeClock())
    await made(ca)
    (tmp_path / "ca" / "ca-key.pem").write_text("damaged")
    with pytest.raises(SourceError, match="which must then be trusted anew"):
        await ca.bring(None, None)


async def test_openssl_takes_its_chain(tmp_path: Path) -> None:
    """OpenSSL, as most clients: a handshake in memory, with the name checked and the constraints heeded."""
    import time

    clock = FakeClock(time.time())
    ca = LocalCa(tmp_path / "ca", NAMES, clock)
    pair = await made(ca)
    (tmp_path / "chain").write_bytes(pair.fullchain)
    (tmp_path / "key").write_bytes(pair.privkey)
    for name in ("example.org", "app.example.org", "127.0.0.1", "localhost"):
        _handshake(tmp_path, ca.root_path, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path, ca.root_path, "example.net")


def _handshake(folder: Path, root: Path, name: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "chain", folder / "key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = ssl.create_default_context(cafile=str(root)).wrap_bio(to_client, to_server, server_hostname=name)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert done == {here, there}
