"""Tokens between services: Ed25519 JWTs of a minute, for one callee each, under a key pair of the caller's own.

A service's private ring is in a folder that only it reads; its public one is published into a folder that the
others read. Rotation needs no downtime: a new key is published first and signs only after GRACE, so that by then
every callee can know it; the old public one stays until the last token under it has run out.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.signing import MAX_LENGTH, KeyRing, TokenRefusedError, new_key
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.clock import Clock

TYPE = "c2l-service+jwt"
LIFETIME = 60
"""Seconds a token holds."""
REUSE = 30.0
"""Seconds for which a caller uses the same token."""
LEEWAY = 5.0
"""Seconds by which two services' clocks may differ."""
GRACE = 30.0
"""Seconds between publishing a key and signing with it, for folders that are copied between machines."""
MAX_AGE = 30 * 86_400.0
"""Seconds after which a key is replaced."""
RELOAD = 1.0
"""Seconds between two looks into the folder for a key that is not known: a flood of made-up ones costs no more."""
REFRESH = 30.0
"""Seconds after which what was read is read again, so that a withdrawn key stops counting."""
PUBLIC = "public"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)


class ServiceKeysError(Exception):
    """The keys cannot be used; the text says how to mend it and shows nothing of them."""


@dataclass(frozen=True, slots=True)
class _Key:
    key: OKPKey
    created: float
    signs_from: float

    def to_json(self, *, private: bool) -> dict[str, Any]:
        return self.key.as_dict(private=private)


class ServiceKeys:
    """One service's key pairs in their files. Several processes of the service may share them."""

    def __init__(self, folder: Path, name: str, clock: Clock, *, public: Path | None = None) -> None:
        """Read the keys; made if there are none. One older than MAX_AGE is replaced.

        Args:
            folder: Where `NAME.json` with the private keys is; made with mode 0700.
            name: The service's.
            clock: Wall time decides which key signs.
            public: Where the public keys are published; None for `public` in the folder.

        Raises:
            ServiceKeysError: A file is malformed or readable by others, or the name cannot be one.
        """
        if not _NAME.fullmatch(name):
            raise ServiceKeysError("expected a service's name of lower-case letters, digits and hyphens")
        self.name = name
        self._clock = clock
        self._private = folder / f"{name}.json"
        self._public = (public or folder / PUBLIC) / f"{name}.json"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._public.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._stamp: tuple[int, int] | None = None
        with self._locked():
            now = clock.wall()
            self._keys = self._loaded() or (_Key(new_key(), now, now),)
            self._store(self._living())  # publishes what may be missing, drops what is over
        if clock.wall() - self._keys[0].created > MAX_AGE:
            self.rotate()

    def ring(self) -> KeyRing:
        """Return the ring whose first key signs now; what another process rotated meanwhile counts."""
        if self._stamp_of() != self._stamp:
            self._keys = self._loaded() or self._keys
        now = self._clock.wall()
        ready = [key for key in self._keys if key.signs_from <= now]
        # none is ready only when the clock went back; the oldest is the one that others know best
        return KeyRing((ready[0].key if ready else self._keys[-1].key,))

    def rotate(self) -> str:
        """Publish a new key, which signs after GRACE; return its id.

        Raises:
            ServiceKeysError: The file is malformed.
        """
        with self._locked():
            self._keys = self._loaded() or self._keys
            now = self._clock.wall()
            made = _Key(new_key(), now, now + GRACE)
            self._store((made, *self._living()))
        return str(made.key.kid)

    @property
    def age(self) -> float:
        """Seconds since the newest key was made."""
        return self._clock.wall() - self._keys[0].created

    def _living(self) -> tuple[_Key, ...]:
        """Return the keys, newest first, without those under which no token can hold any more."""
        now = self._clock.wall()
        kept: list[_Key] = []
        for position, key in enumerate(self._keys):
            if position and now > self._keys[position - 1].signs_from + LIFETIME + LEEWAY + GRACE:
                break
            kept.append(key)
        return tuple(kept)

    # --- files

    def _store(self, keys: tuple[_Key, ...]) -> None:
        # The public file first: at no moment is there a signature that nobody can check.
        document = {"keys": [key.to_json(private=False) for key in keys]}
        files.replace(self._public, json.dumps(document).encode(), mode=files.PUBLIC)
        times = {str(key.key.kid): {"created": key.created, "signs_from": key.signs_from} for key in keys}
        private = {"keys": [key.to_json(private=True) for key in keys], "times": times}
        files.replace(self._private, json.dumps(private).encode())
        self._keys, self._stamp = keys, self._stamp_of()

    def _loaded(self) -> tuple[_Key, ...]:
        """Return the keys in the file, newest first; none when there is no file."""
        stamp = self._stamp_of()
        if stamp is None:
            return ()
        if self._private.stat().st_mode & 0o077:
            raise ServiceKeysError(
                f"{self._private} is readable by others: expected mode 0600; mend it with chmod 600"
            )
        try:
            value = json.loads(self._private.read_bytes())
            keys = tuple(
                _Key(
                    OKPKey.import_key(item),
                    float(value["times"][item["kid"]]["created"]),
                    float(value["times"][item["kid"]]["signs_from"]),
                )
                for item in value["keys"]
            )
            KeyRing(tuple(key.key for key in keys))
            if not all(key.key.is_private for key in keys):
                raise ServiceKeysError("public keys")  # noqa: TRY301 - replaced below by the one text
        except (ValueError, KeyError, TypeError, AttributeError, JoseError, ServiceKeysError):
            raise ServiceKeysError(
                f"expected Ed25519 key pairs in {self._private}; delete it, and the service makes new ones"
            ) from None
        self._stamp = stamp
        return keys

    def _stamp_of(self) -> tuple[int, int] | None:
        try:
            stat = self._private.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes of this service out while the files change."""
        fd = os.open(self._private.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


class ServiceTokens:
    """Mints a service's tokens."""

    def __init__(self, keys: ServiceKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._minted: dict[str, tuple[float, str]] = {}  # by callee: there are as many as we call

    def mint(self, audience: str) -> str:
        """Return a token for a callee; the same one for REUSE seconds.

        Raises:
            ServiceKeysError: The keys were changed into something unusable.
        """
        now = self._clock.wall()
        known = self._minted.get(audience)
        if known is not None and 0 <= now - known[0] < REUSE:
            return known[1]
        claims = {
            "iss": self._keys.name,
            "aud": audience,
            "iat": int(now),
            "exp": int(now) + LIFETIME,
            "jti": tokens.random_id(20),
        }
        text = self._keys.ring().sign(claims, typ=TYPE)
        self._minted[audience] = (now, text)
        return text


class ServiceVerifier:
    """Checks tokens that callers present to one service."""

    def __init__(self, audience: str, folder: Path, issuers: Sequence[str], clock: Clock) -> None:
        """Make a verifier; the folder may still be empty.

        Args:
            audience: Who is called.
            folder: The public keys, `ISSUER.json` each.
            issuers: Who may call.
            clock: Monotonic time decides when the folder is read again.
        """
        self._audience = audience
        self._folder = folder
        self._issuers = tuple(issuers)
        self._clock = clock
        self._rings: dict[str, KeyRing] = {}
        self._read_at = float("-inf")

    def verify(self, text: str, *, now: float) -> str:
        """Return who calls.

        Args:
            text: The token as received.
            now: Seconds since the epoch.

        Raises:
            TokenRefusedError: It does not hold, or is not for this service, or not from one that may call.
        """
        issuer, ring = self._ring_of(_kid_of(text))
        claims = ring.verify(text, typ=TYPE, now=now, leeway=LEEWAY)
        if claims.get("iss") != issuer:
            raise TokenRefusedError("of another issuer than its key")
        if claims.get("aud") != self._audience:
            raise TokenRefusedError("for another audience")
        if claims["exp"] - claims["iat"] > LIFETIME:
            raise TokenRefusedError("meant to hold for too long")
        return issuer

    def _ring_of(self, kid: str) -> tuple[str, KeyRing]:
        since = self._clock.monotonic() - self._read_at
        if since >= REFRESH:
            self._read()
            since = 0.0
        found = self._find(kid)
        if found is None and since >= RELOAD:
            self._read()
            found = self._find(kid)
        if found is None:
            raise TokenRefusedError("signed by an unknown key")
        return found

    def _find(self, kid: str) -> tuple[str, KeyRing] | None:
        return next(((issuer, ring) for issuer, ring in self._rings.items() if kid in ring.kids), None)

    def _read(self) -> None:
        self._read_at = self._clock.monotonic()
        rings: dict[str, KeyRing] = {}
        for issuer in self._issuers:
            # one service's damaged file must not shut the others out
            with contextlib.suppress(OSError, ValueError):
                rings[issuer] = KeyRing.from_jwks(json.loads((self._folder / f"{issuer}.json").read_bytes()))
        self._rings = rings


def _kid_of(text: str) -> str:
    """Return the id of the key that a token names, of which nothing is believed yet.

    Raises:
        TokenRefusedError: It names none.
    """
    if len(text) > MAX_LENGTH or not text.isascii():
        raise TokenRefusedError("not a token of ours")
    try:
        kid = jws.extract_compact(text.encode()).headers()["kid"]
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TokenRefusedError("not a token of ours") from None
    if not isinstance(kid, str):
        raise TokenRefusedError("not a token of ours")
    return kid
