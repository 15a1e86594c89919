"""Tokens between services: who is refused, and a rotation that refuses nobody."""

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.auth import services
from cloudtolocalllm.auth.services import ServiceKeys, ServiceKeysError, ServiceTokens, ServiceVerifier
from cloudtolocalllm.auth.signing import KeyRing, TokenRefusedError


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(tmp_path: Path, clock: FakeClock) -> ServiceKeys:
    return ServiceKeys(tmp_path, "api", clock)


@pytest.fixture
def verifier(tmp_path: Path, clock: FakeClock) -> ServiceVerifier:
    return ServiceVerifier("manager", tmp_path / "public", ("api",), clock)


def refused(verifier: ServiceVerifier, text: str, clock: FakeClock) -> str:
    with pytest.raises(TokenRefusedError) as caught:
        verifier.verify(text, now=clock.wall())
    return str(caught.value)


def claims(clock: FakeClock, **changes: Any) -> dict[str, Any]:
    now = int(clock.wall())
    return {"iss": "api", "aud": "manager", "iat": now, "exp": now + 60, "jti": "j", **changes}


def test_a_token_holds_for_its_callee_and_a_minute(
    keys: ServiceKeys, verifier: ServiceVerifier, clock: FakeClock
) -> None:
    minted = ServiceTokens(keys, clock)
    text = minted.mint("manager")
    assert verifier.verify(text, now=clock.wall()) == "api"
    clock.advance(29)
    assert minted.mint("manager") == text
    clock.advance(1)
    assert minted.mint("manager") != text
    clock.advance(34.9)
    assert verifier.verify(text, now=clock.wall()) == "api"
    clock.advance(0.2)
    assert "expired" in refused(verifier, text, clock)


def test_every_wrong_claim_is_refused(keys: ServiceKeys, verifier: ServiceVerifier, clock: FakeClock) -> None:
    ring = keys.ring()
    assert verifier.verify(ring.sign(claims(clock), typ=services.TYPE), now=clock.wall()) == "api"
    for wrong, why in (
        ({"aud": "proxy"}, "audience"),
        ({"aud": ["manager"]}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "edge"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": int(clock.wall()) + 61}, "too long"),
        ({"iat": int(clock.wall()) + 30}, "not yet valid"),
        ({"iat": None}, "whole numbers"),
    ):
        assert why in refused(verifier, ring.sign(claims(clock, **wrong), typ=services.TYPE), clock)
    for typ in ("JWT", "c2l-key+jwt", "c2l-bridge+jwt", ""):
        assert "another kind" in refused(verifier, ring.sign(claims(clock), typ=typ), clock)


def test_a_known_services_key_does_not_speak_for_another(tmp_path: Path, keys: ServiceKeys, clock: FakeClock) -> None:
    other = ServiceKeys(tmp_path, "edge", clock)
    both = ServiceVerifier("manager", tmp_path / "public", ("api", "edge"), clock)
    assert both.verify(ServiceTokens(other, clock).mint("manager"), now=clock.wall()) == "edge"
    assert "another issuer" in refused(both, other.ring().sign(claims(clock), typ=services.TYPE), clock)
    only = ServiceVerifier("manager", tmp_path / "public", ("api",), clock)
    assert "unknown key" in refused(only, ServiceTokens(other, clock).mint("manager"), clock)


def test_an_unknown_key_and_what_is_no_token(keys: ServiceKeys, verifier: ServiceVerifier, clock: FakeClock) -> None:
    assert "unknown key" in refused(verifier, KeyRing.generate().sign(claims(clock), typ=services.TYPE), clock)
    good = ServiceTokens(keys, clock).mint("manager")
    head, body, _ = good.split(".")
    none = base64.urlsafe_b64encode(
        json.dumps({"alg": "none", "kid": keys.ring().kids[0], "typ": services.TYPE}).encode()
    )
    for text in (
        "",
        "a.b.c",
        good + "A",
        "\u00e4",
        "x" * 5000,
        f"{head}.{body}.",
        f"{none.decode().rstrip('=')}.{body}.",
    ):
        refused(verifier, text, clock)
    forged = KeyRing.from_jwks(
        {"keys": [dict(KeyRing.generate().jwks(private=True)["keys"][0], kid=keys.ring().kids[0])]}
    )
    assert "forged" in refused(verifier, forged.sign(claims(clock), typ=services.TYPE), clock)


def test_a_flood_of_unknown_keys_reads_the_folder_once_a_second(
    tmp_path: Path, keys: ServiceKeys, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    original = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        reads.append(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    verifier = ServiceVerifier("manager", tmp_path / "public", ("api",), clock)
    for _ in range(50):
        refused(verifier, KeyRing.generate().sign(claims(clock), typ=services.TYPE), clock)
    assert len(reads) == 1
    clock.advance(services.RELOAD)
    for _ in range(50):
        refused(verifier, KeyRing.generate().sign(claims(clock), typ=services.TYPE), clock)
    assert len(reads) == 2


def test_files_have_the_right_modes_and_the_public_one_no_secret(tmp_path: Path, keys: ServiceKeys) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(tmp_path / "api.json") == 0o600
    assert mode(tmp_path / "public" / "api.json") == 0o644
    keys.rotate()
    assert mode(tmp_path / "api.json") == 0o600
    assert mode(tmp_path / "public" / "api.json") == 0o644
    public = (tmp_path / "public" / "api.json").read_text()
    private = json.loads((tmp_path / "api.json").read_text())
    assert '"d"' not in public
    assert all(item["d"] not in public for item in private["keys"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.json", "api.lock", "public"]


def test_a_new_folder_is_the_owners_alone(tmp_path: Path, clock: FakeClock) -> None:
    ServiceKeys(tmp_path / "services", "api", clock)
    assert stat.S_IMODE((tmp_path / "services").stat().st_mode) == 0o700


def test_the_keys_stay_over_a_restart(tmp_path: Path, keys: ServiceKeys, clock: FakeClock) -> None:
    assert ServiceKeys(tmp_path, "api", clock).ring().kids == keys.ring().kids
    (tmp_path / "public" / "api.json").unlink()
    again = ServiceKeys(tmp_path, "api", clock)
    verifier = ServiceVerifier("manager", tmp_path / "public", ("api",), clock)
    assert verifier.verify(ServiceTokens(again, clock).mint("manager"), now=clock.wall()) == "api"


def seconds(clock: FakeClock, number: int) -> Iterator[int]:
    for second in range(number):
        yield second
        clock.advance(1)


def test_a_rotation_refuses_no_call_and_ends_the_old_key(
    tmp_path: Path, keys: ServiceKeys, verifier: ServiceVerifier, clock: FakeClock
) -> None:
    minted = ServiceTokens(keys, clock)
    operator = ServiceKeys(tmp_path, "api", clock)  # `services rotate` in a process of its own
    (old,) = keys.ring().kids
    oldest = minted.mint("manager")
    verifier.verify(oldest, now=clock.wall())
    new = operator.rotate()
    used: list[str] = []
    published = json.loads((tmp_path / "public" / "api.json").read_text())["keys"]
    assert [item["kid"] for item in published] == [new, old]
    for _ in seconds(clock, 200):
        assert verifier.verify(minted.mint("manager"), now=clock.wall()) == "api"
        used.append(keys.ring().kids[0])
    assert used.index(new) == services.GRACE
    assert set(used) == {old, new}
    newer = operator.rotate()
    published = json.loads((tmp_path / "public" / "api.json").read_text())["keys"]
    assert [item["kid"] for item in published] == [newer, new]
    clock.advance(services.REFRESH)
    assert "unknown key" in refused(verifier, oldest, clock)


def test_two_rotations_at_once_keep_what_signs(
    tmp_path: Path, keys: ServiceKeys, verifier: ServiceVerifier, clock: FakeClock
) -> None:
    minted = ServiceTokens(keys, clock)
    keys.rotate()
    keys.rotate()
    for _ in seconds(clock, 150):
        assert verifier.verify(minted.mint("manager"), now=clock.wall()) == "api"
    published = json.loads((tmp_path / "public" / "api.json").read_text())["keys"]
    assert len(published) == 3


def test_age_replaces_a_key_at_the_next_start(tmp_path: Path, keys: ServiceKeys, clock: FakeClock) -> None:
    (old,) = keys.ring().kids
    clock.advance(services.MAX_AGE)
    assert ServiceKeys(tmp_path, "api", clock).age > 0
    clock.advance(1)
    assert ServiceKeys(tmp_path, "api", clock).age == 0
    assert ServiceKeys(tmp_path, "api", clock).ring().kids == (old,)  # for GRACE yet
    clock.advance(services.GRACE)
    assert ServiceKeys(tmp_path, "api", clock).ring().kids != (old,)


@pytest.mark.parametrize("content", ["", "{}", '{"keys": []}', '{"keys": [{"kid": "a", "kty": "OKP"}], "times": {}}'])
def test_a_damaged_file_is_refused_without_showing_it(tmp_path: Path, clock: FakeClock, content: str) -> None:
    path = tmp_path / "api.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ServiceKeysError, match="expected Ed25519 key pairs"):
        ServiceKeys(tmp_path, "api", clock)


def test_a_file_that_others_can_read_or_of_public_keys_is_refused(
    tmp_path: Path, keys: ServiceKeys, clock: FakeClock
) -> None:
    path = tmp_path / "api.json"
    path.chmod(0o640)
    with pytest.raises(ServiceKeysError, match="chmod 600"):
        ServiceKeys(tmp_path, "api", clock)
    value = json.loads(path.read_text())
    for item in value["keys"]:
        del item["d"]
    path.write_text(json.dumps(value))
    path.chmod(0o600)
    with pytest.raises(ServiceKeysError, match="expected Ed25519 key pairs"):
        ServiceKeys(tmp_path, "api", clock)
    with pytest.raises(ServiceKeysError, match="name"):
        ServiceKeys(tmp_path, "../api", clock)


def test_one_services_damaged_file_does_not_shut_out_another(
    tmp_path: Path, keys: ServiceKeys, clock: FakeClock
) -> None:
    verifier = ServiceVerifier("manager", tmp_path / "public", ("edge", "api"), clock)
    (tmp_path / "public" / "edge.json").write_text("{")
    assert verifier.verify(ServiceTokens(keys, clock).mint("manager"), now=clock.wall()) == "api"
