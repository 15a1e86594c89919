"""Who a request is from, and whether the home lets it: the fields that the user's proxy sets (contracts.home)."""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.auth.scopes import NO_SCOPE, KeyScope
from cloudtolocalllm.bridge.keys import DAY, KeyList, KeyListFullError, ListedKey
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.home import KEY_ID, KEY_SCOPE, VIA, VIA_KEY, VIA_SESSION
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers

MAX_SCOPE = 4096
"""Bytes of C2L-Scope."""

AT_HOME = "local"
"""In place of a device's id: somebody at this machine, by the page that the bridge serves. No id of a device is
so short."""

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_FIELDS = (VIA, KEY_ID, KEY_SCOPE)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    session: bool = False
    """Whether a signed-in person's page asks."""
    key: str = ""
    """The API key's id; "" when none was used."""
    scope: KeyScope = NO_SCOPE
    device: str = ""
    """Id of the device that proved to have sealed the request, or AT_HOME; "" for one that came in the clear through
    the cloud."""

    def may_see(self, owner: str) -> bool:
        """Tell whether an exchange that was begun with this key ("" for none) is this caller's: a key has its own."""
        return not self.key or self.key == owner

    def check_route(self, target: str) -> None:
        """Refuse what was sealed for a route that the key does not reach; of others the cloud has looked at it.

        Args:
            target: As it stands in the sealed request.

        Raises:
            RefusalError: It does not.
        """
        if not self.scope.allows_route(target.partition("?")[0]):
            raise RefusalError(Problem.KEY_SCOPE, "It is limited to other routes.")

    def check_home(self) -> None:
        """Refuse the home's own routes to a limited key: what a run asks an engine for would be counted nowhere.

        Raises:
            RefusalError: It is one.
        """
        scope = self.scope
        if scope.routes or scope.models or scope.tokens_per_day is not None:
            raise RefusalError(Problem.KEY_SCOPE, "The home's own routes need a key without limits, or a session.")

    def check_models(self, models: list[str]) -> None:
        """Refuse a request for models that are out of the key's scope.

        Args:
            models: All that the request names, in whichever spelling.

        Raises:
            RefusalError: One of them is, or none is named, so that the engine would choose.
        """
        if not self.scope.models:
            return
        if not models:
            raise RefusalError(Problem.KEY_SCOPE, "It is limited to some models; name one of them.")
        if not all(self.scope.allows_model(model) for model in models):
            raise RefusalError(Problem.KEY_SCOPE, "It is limited to other models; list the models to see which.")


def identify(headers: Headers, keys: KeyList, now: float) -> Caller:
    """Return who sent a request, a key judged by the home's own list.

    Args:
        headers: Of the request, as it came out of the tunnel.
        keys: The list; a key that it does not know is added.
        now: Seconds since the epoch.

    Raises:
        RefusalError: The key is revoked or has expired, or the fields are malformed.
    """
    given = {name: value for name, value in headers if name in _FIELDS}
    if len(given) != sum(name in _FIELDS for name, _ in headers):
        raise _malformed()
    via = given.get(VIA)
    if via != VIA_KEY:
        if via not in (None, VIA_SESSION) or KEY_ID in given or KEY_SCOPE in given:
            raise _malformed()
        return Caller(session=via == VIA_SESSION)
    key_id = given.get(KEY_ID, b"").decode("latin-1")
    if not _KEY.fullmatch(key_id):
        raise _malformed()
    said = _said(given.get(KEY_SCOPE, b""))
    key = _listed(keys, key_id, said)
    if key.revoked is not None:
        raise RefusalError(Problem.UNAUTHENTICATED, "This API key was revoked; make a new one.")
    if now >= min(key.expires, said["exp"]):
        raise RefusalError(Problem.UNAUTHENTICATED, "This API key has expired; make a new one.")
    keys.used(key)
    return Caller(key=key_id, scope=key.scope)


def check_tokens(caller: Caller, keys: KeyList, now: float) -> None:
    """Refuse a key whose tokens of today are used up.

    What an answer costs is known when it ends, so answers that run together may go beyond the limit; then the next
    request is refused.

    Raises:
        RefusalError: They are.
    """
    limit = caller.scope.tokens_per_day
    key = keys.find(caller.key)
    if limit is None or key is None or key.tokens_on(now) < limit:
        return
    wait = max(1, DAY - int(now) % DAY)
    raise RefusalError(
        Problem.RATE_LIMITED, f"This API key has used its {limit} tokens of today (UTC).", retry_after=wait
    )


def _listed(keys: KeyList, key_id: str, said: dict[str, Any]) -> ListedKey:
    keys.refresh()
    key = keys.find(key_id)
    if key is not None:
        return key
    try:
        return keys.add(key_id, "", KeyScope.from_json(said), created=said["iat"], expires=said["exp"])
    except ValueError:
        raise _malformed() from None
    except KeyListFullError:
        raise RefusalError(
            Problem.OVERLOADED, "The list of API keys at home is full; use one of those that are on it."
        ) from None


def _said(text: bytes) -> dict[str, Any]:
    """Read C2L-Scope."""
    try:
        if len(text) > MAX_SCOPE:
            raise _malformed()
        value = json.loads(base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise _malformed() from None
    if not isinstance(value, dict) or type(value.get("iat")) is not int or type(value.get("exp")) is not int:
        raise _malformed()
    return value


def _malformed() -> RefusalError:
    return RefusalError(Problem.BAD_REQUEST, "Expected the relay to say who asks, and as it is documented.")
