"""What is refused before it is deployed, and in which words."""

import datetime
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.certs_parts import DAY, TestAuthority, key_pem, pem, small_rsa_key

from cloudtolocalllm.certs.validate import MAX_PEM, Facts, Pair, UnfitError, check

NOW = 1_800_000_000.0
NAMES = ("example.org", "app.example.org")


@cache
def authority() -> TestAuthority:
    return TestAuthority(NOW)


@cache
def good() -> Pair:
    return authority().pair(NAMES)


def facts(pair: Pair, names: tuple[str, ...] = NAMES, **options: Any) -> Facts:
    return check(pair, names, NOW, roots=[authority().root.certificate], strict=True, **options)


def faults(pair: Pair, names: tuple[str, ...] = NAMES, **options: Any) -> str:
    given = {"roots": [authority().root.certificate], "strict": True, **options}
    with pytest.raises(UnfitError) as caught:
        check(pair, names, NOW, **given)
    return str(caught.value)


def test_a_fit_pair_and_what_is_known_of_it() -> None:
    known = facts(good())
    assert known.names == NAMES
    assert known.not_after == NOW + 89 * 86_400
    assert known.issuer == "CN=Test Intermediate"
    assert known.remarks == ()


@pytest.mark.parametrize(
    ("have", "want", "fit"),
    [
        (("*.example.org",), "app.example.org", True),
        (("*.example.org",), "*.example.org", True),
        (("*.example.org",), "example.org", False),
        (("*.example.org",), "a.b.example.org", False),
        (("app.example.org",), "*.example.org", False),
        (("EXAMPLE.org",), "example.org", True),
        (("example.org",), "xexample.org", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("127.0.0.1",), "127.0.0.2", False),
        (("::1",), "::1", True),
        ((), "example.org", False),
    ],
)
def test_which_names_are_covered(have: tuple[str, ...], want: str, fit: bool) -> None:
    pair = authority().pair(have)
    if fit:
        facts(pair, (want,))
    else:
        assert f"expected a certificate for {want}, got one for" in faults(pair, (want,))


def test_an_expired_one() -> None:
    assert "expired on 2027-01-14" in faults(authority().pair(NAMES, begins=90 * DAY, ends=-DAY))


def test_one_that_is_not_valid_yet() -> None:
    text = faults(authority().pair(NAMES, begins=-DAY))
    assert "not valid before" in text
    assert "clock" in text


def test_the_key_of_another_certificate() -> None:
    other = authority().pair(NAMES)
    assert "expected the private key of this certificate, got another" in faults(
        Pair(good().fullchain, other.privkey)
    )


def test_a_chain_that_begins_with_the_intermediate() -> None:
    leaf, key = authority().leaf(NAMES)
    pair = Pair(pem(authority().intermediate.certificate) + pem(leaf), key_pem(key))
    assert "server's certificate first" in faults(pair)


def test_a_chain_without_its_intermediate() -> None:
    leaf, key = authority().leaf(NAMES)
    for strict in (True, False):
        assert "the chain is incomplete" in faults(Pair(pem(leaf), key_pem(key)), strict=strict)


def test_a_chain_with_an_intermediate_of_somebody_else() -> None:
    leaf, key = authority().leaf(NAMES)
    foreign = TestAuthority(NOW, "Foreign")
    pair = Pair(pem(leaf) + pem(foreign.intermediate.certificate), key_pem(key))
    assert "the chain is broken" in faults(pair)
    # the same name, another key: only the signature tells
    twin = TestAuthority(NOW, "Test")
    assert "the chain is broken" in faults(Pair(pem(leaf) + pem(twin.intermediate.certificate), key_pem(key)))


def test_an_issuer_that_is_no_authority() -> None:
    from tests.support.certs_parts import Signer

    middle, middle_key = authority().leaf(("middle.example.org",))
    leaf, key = authority().leaf(NAMES, by=Signer(middle, middle_key))
    pair = Pair(pem(leaf) + pem(middle) + pem(authority().intermediate.certificate), key_pem(key))
    assert "the chain is broken" in faults(pair)


def test_an_expired_intermediate() -> None:
    assert "is not valid now" in faults(authority().pair(NAMES, by=authority().expired_intermediate()))


def test_an_unknown_root_is_refused_where_roots_are_set_and_told_of_elsewhere() -> None:
    foreign = TestAuthority(NOW, "Foreign").pair(NAMES)
    assert "the chain is incomplete" in faults(foreign)
    known = check(foreign, NAMES, NOW, roots=[], strict=False)
    assert known.remarks == ("its chain ends at a root that this machine does not know",)


def test_a_root_in_the_file_makes_nobody_trust_it() -> None:
    foreign = TestAuthority(NOW, "Foreign")
    pair = foreign.pair(NAMES)
    pair = Pair(pair.fullchain + pem(foreign.root.certificate), pair.privkey)
    assert "the chain is incomplete" in faults(pair)
    check(pair, NAMES, NOW, roots=[], strict=False)


def test_one_for_clients() -> None:
    assert "extended key usage serverAuth" in faults(authority().pair(NAMES, use=ExtendedKeyUsageOID.CLIENT_AUTH))
    facts(authority().pair(NAMES, use=None))


def test_weak_and_odd_keys() -> None:
    assert "at least 2048 bits, got 1024" in faults(authority().pair(NAMES, key=small_rsa_key()))
    assert "P-256, P-384 or P-521" in faults(authority().pair(NAMES, key=ec.generate_private_key(ec.SECP256K1())))
    facts(authority().pair(NAMES, key=ed25519.Ed25519PrivateKey.generate()))


def test_a_key_with_a_passphrase() -> None:
    leaf, key = authority().leaf(NAMES)
    pair = Pair(pem(leaf) + pem(authority().intermediate.certificate), key_pem(key, b"secret"))
    assert "without a passphrase" in faults(pair)


@pytest.mark.parametrize(
    ("fullchain", "privkey", "words"),
    [
        (b"", None, "got an empty file"),
        (b"hello", None, "got something else"),
        (None, b"", "expected a private key in PEM, got an empty file"),
        (None, b"hello", "breaks off or is none"),
        (b"x" * (MAX_PEM + 1), None, "at most"),
        (None, b"x" * (MAX_PEM + 1), "at most"),
    ],
)
def test_files_that_are_something_else(fullchain: bytes | None, privkey: bytes | None, words: str) -> None:
    pair = Pair(good().fullchain if fullchain is None else fullchain, good().privkey if privkey is None else privkey)
    assert words in faults(pair)


def test_too_long_a_chain() -> None:
    assert "at most 10 certificates" in faults(Pair(good().fullchain * 6, good().privkey))


def test_every_fault_is_told_at_once() -> None:
    expired = authority().pair(("example.net",), begins=90 * DAY, ends=-datetime.timedelta(hours=1))
    text = faults(Pair(expired.fullchain, good().privkey))
    for words in ("expired", "got another", "expected a certificate for example.org"):
        assert words in text


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_half_written_files_are_refused_wherever_they_end(data: st.DataObject) -> None:
    chain_ends = data.draw(st.integers(0, len(good().fullchain.rstrip()) - 1))
    key_ends = data.draw(st.integers(0, len(good().privkey.rstrip()) - 1))
    with pytest.raises(UnfitError):
        facts(Pair(good().fullchain[:chain_ends], good().privkey))
    with pytest.raises(UnfitError):
        facts(Pair(good().fullchain, good().privkey[:key_ends]))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_anything_else_is_refused_by_the_documented_error(fullchain: bytes, privkey: bytes) -> None:
    wrapped = b"-----BEGIN CERTIFICATE-----\n" + fullchain + b"\n-----END CERTIFICATE-----\n"
    for pair in (Pair(fullchain, privkey), Pair(wrapped, privkey), Pair(good().fullchain, privkey)):
        with pytest.raises(UnfitError):
            facts(pair)
