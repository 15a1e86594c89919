"""The accounts' side of the scripted home: sign-in, pairing, keys, machines, the admin's overview."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CODE = "BCDF-GHJK"
KEY = "c2l_eyJhbGciOiJFZERTQSJ9.c2hvd24gb25jZQ.signature"
AT = 1_767_323_045
"""A second of January 2026."""


def problem(slug: str, code: int, title: str, detail: str) -> dict[str, Any]:
    return {"type": f"urn:c2l:problem:{slug}", "title": title, "detail": detail, "status": code}


@dataclass
class Reply:
    """What one call is answered with; without a document it is 204."""

    document: dict[str, Any] | None = None
    code: int = 200
    fields: tuple[tuple[str, str], ...] = ()


def refusal(slug: str, code: int, detail: str, *, retry_after: int | None = None) -> Reply:
    fields = () if retry_after is None else (("retry-after", str(retry_after)),)
    return Reply(problem(slug, code, "It was refused", detail), code, fields)


UNKNOWN = refusal("not-found", 404, "There is nothing like it.")


def pairing_request(kind: str = "device", **members: Any) -> dict[str, Any]:
    """Return what the server knows of a request to connect a machine."""
    request = {"name": "attic tower", "address": "203.0.113.7", "version": "0.9.1", "kind": kind}
    return {**request, "requested": AT, "expires": AT + 300, **members}


def api_key(id_: str, name: str, **members: Any) -> dict[str, Any]:
    """Return a key as the home lists it, without limits."""
    key = {"id": id_, "name": name, "created": AT, "expires": 4e9, "last_used": None, "revoked": False}
    limits: dict[str, Any] = {
        "routes": [],
        "models": [],
        "requests_per_minute": None,
        "tokens_per_day": None,
        "bridge": None,
    }
    return {**key, **limits, "tokens_today": 0, **members}


@dataclass
class Accounts:
    """What the accounts' routes answer, and what was asked of them."""

    providers: list[dict[str, str]] = field(default_factory=list)
    sign_in: str = "link"
    user: str = "u_owner"
    """Who is signed in."""
    provider_error: str | None = None
    """With it the way back from the provider ends."""
    admin: bool = False
    signed_out: Reply = field(default_factory=Reply)
    pairing: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Open requests by code or id."""
    redirect_to: str | None = None
    """Answered to a decision."""
    keys: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    scripted: dict[tuple[str, str], list[Reply]] = field(default_factory=dict)
    """By method and path: answered first, one after another, instead of what is right."""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path and body."""

    def session(self, *, signed_in: bool) -> dict[str, Any]:
        """Return the document of the session."""
        ways = {"providers": self.providers, "sign_in": self.sign_in}
        if not signed_in:
            return {"signed_in": False, "user": None, "expires": None, "name": None, "email": None, **ways}
        who = {"user": self.user, "name": "Ada Example", "email": "ada@example.com", "admin": self.admin}
        return {"signed_in": True, "expires": 4e9, **who, **ways}

    def calls(self, method: str) -> list[tuple[str, Any]]:
        """Return path and body of the calls with a method."""
        return [(path, body) for asked, path, body in self.asked if asked == method]

    def reply(self, method: str, path: str, body: Any) -> Reply:
        """Answer a call of somebody who is signed in."""
        self.asked.append((method, path, body))
        if scripted := self.scripted.get((method, path)):
            return scripted.pop(0)
        rooms: dict[str, Callable[[str, str, Any], Reply]] = {
            "/api/bridge/pairing/requests/": self._pairing,
            "/api/bridge/": self._bridge,
            "/api/auth/keys": self._key,
            "/api/admin/": self._admin,
        }
        for prefix, answer in rooms.items():
            if path.startswith(prefix):
                return answer(method, path.removeprefix(prefix), body)
        return UNKNOWN

    def _pairing(self, method: str, rest: str, body: Any) -> Reply:
        id_, _, decision = rest.partition("/")
        if id_ not in self.pairing:
            return UNKNOWN
        if method == "GET":
            return Reply(self.pairing[id_])
        del self.pairing[id_]  # a request is answered once
        return Reply({"redirect_to": self.redirect_to} if decision in {"approve", "deny"} else None)

    def _bridge(self, method: str, rest: str, body: Any) -> Reply:
        return Reply() if method in {"PATCH", "DELETE"} else UNKNOWN

    def _key(self, method: str, rest: str, body: Any) -> Reply:
        if method == "DELETE":
            self.keys = [key for key in self.keys if key["id"] != rest.removeprefix("/")]
            return Reply()
        made = api_key("madekey22222", body["name"], **{k: v for k, v in body.items() if k not in {"name", "days"}})
        self.keys.append(made)
        return Reply({**made, "key": KEY}, 201)

    def _admin(self, method: str, rest: str, body: Any) -> Reply:
        if not self.admin:
            return refusal("forbidden", 403, "Only admins may.")
        if rest == "overview":
            counts = {"bridges_connected": 12, "instances": 3, "users_active": 7}
            return Reply({**counts, "version": "0.1.0", "sign_up": "allow-list", "provider": "Example ID"})
        if rest == "audit":
            return Reply({"events": self.events})
        return Reply()
