"""Who may sign in, and who is an administrator. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

FIRST = "first"
MAX_NAME = 100
MAX_EMAIL = 254
"""Characters (RFC 5321 §4.5.3.1.3, less the brackets)."""
MAX_GROUPS = 1000

_EMAIL = re.compile(r"[\x21-\x3f\x41-\x7e]{1,64}@([a-z0-9-]+(?:\.[a-z0-9-]+)*)", re.ASCII)
"""Printable ASCII, in lower case, with one @: letters of other scripts could pass for those of a listed address."""


class SignUp(StrEnum):
    """Who may have an account."""

    OPEN = "open"
    """Whoever the provider lets in."""
    ALLOW_LIST = "allow-list"
    """Whoever one of the lists names."""
    CLOSED = "closed"
    """Nobody new: administrators, and who has a machine paired."""


class Refused(Enum):
    """Why somebody may not sign in."""

    NOT_LISTED = "not listed"
    UNVERIFIED = "no verified e-mail"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class AdminRule:
    """Who is an administrator: the first who signs in, or whoever has a claim."""

    claim: str = ""
    """Empty for the first."""
    value: str = ""

    @property
    def first(self) -> bool:
        """Whether it is the first who signs in."""
        return not self.claim


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules."""

    sign_up: SignUp = SignUp.OPEN
    emails: frozenset[str] = frozenset()
    """In lower case, as `domains`."""
    domains: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    groups_claim: str = "groups"
    admin: AdminRule = AdminRule()

    @property
    def by_group(self) -> bool:
        """Whether a group can let somebody in."""
        return self.sign_up is SignUp.ALLOW_LIST and bool(self.groups)


@dataclass(frozen=True, slots=True)
class Person:
    """What a provider says of somebody."""

    name: str
    email: str
    verified: bool
    """Whether the e-mail is known to be theirs."""
    groups: frozenset[str]
    admin: bool
    """Whether a claim makes them an administrator."""

    def __repr__(self) -> str:
        return "Person(…)"


def parse_admin(text: str) -> AdminRule:
    """Read "first" or "CLAIM=VALUE".

    Raises:
        ValueError: It is neither.
    """
    if text == FIRST:
        return AdminRule()
    claim, equals, value = text.partition("=")
    if not equals or not claim or not value:
        raise ValueError('expected "first", or CLAIM=VALUE such as groups=admins')
    return AdminRule(claim, value)


def person_of(claims: Mapping[str, Any], policy: Policy) -> Person:
    """Return what claims say of somebody.

    Args:
        claims: Of the ID token, and of the userinfo endpoint where the ID token is silent.
        policy: Which claims matter.
    """
    email = claims.get("email")
    if not isinstance(email, str) or not _EMAIL.fullmatch(email.lower()) or len(email) > MAX_EMAIL:
        email = ""
    rule = policy.admin
    return Person(
        name=_name(claims),
        email=email.lower(),
        # Only the JSON value true: some providers send the text "false", which counts as true elsewhere.
        verified=bool(email) and claims.get("email_verified") is True,
        groups=_texts(claim_of(claims, policy.groups_claim)),
        admin=not rule.first and rule.value in _texts(claim_of(claims, rule.claim)),
    )


def refusal(policy: Policy, person: Person, *, admin: bool, known: bool) -> Refused | None:
    """Return why somebody may not sign in; None when they may. The rules, in order, are the lines.

    Args:
        policy: The rules.
        person: Who.
        admin: Whether they are an administrator, by a claim or by being the first.
        known: Whether they have a machine paired.
    """
    if admin or policy.sign_up is SignUp.OPEN:
        return None
    if policy.sign_up is SignUp.CLOSED:
        return None if known else Refused.CLOSED
    if not policy.groups.isdisjoint(person.groups):
        return None
    listed = person.email in policy.emails or person.email.rpartition("@")[2] in policy.domains
    if not person.email or not listed:
        return Refused.NOT_LISTED
    return None if person.verified else Refused.UNVERIFIED


def claim_of(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by a path such as `realm_access.roles` when there is none of this very name."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, list):
        return frozenset(item for item in value[:MAX_GROUPS] if isinstance(item, str))
    return frozenset()


def _name(claims: Mapping[str, Any]) -> str:
    for claim in ("name", "preferred_username", "nickname"):
        value = claims.get(claim)
        if isinstance(value, str) and (shown := "".join(c for c in value if c.isprintable()).strip()):
            return shown[:MAX_NAME]
    return ""
