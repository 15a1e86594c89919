"""Cookies as the API sets them."""

from fastapi import Response

from cloudtolocalllm.api.oidc import pending
from cloudtolocalllm.api.parts import Parts


def set_session(response: Response, parts: Parts, value: str, max_age: int) -> None:
    """Set the session cookie; an empty value with age 0 removes it.

    Args:
        response: The answer.
        parts: Say which cookie it is.
        value: The sealed session.
        max_age: Seconds.
    """
    # Domain is left out on purpose: without it no other host gets the cookie, and __Host- forbids it.
    response.set_cookie(
        parts.identifier.cookie,
        value,
        max_age=max_age,
        path="/",
        secure=parts.secure,
        httponly=True,
        samesite="strict",
    )
    response.headers["cache-control"] = "no-store"


def login_cookie(parts: Parts) -> str:
    """Return the name of the cookie of a sign-in under way."""
    return pending.HOST_COOKIE if parts.secure else pending.COOKIE


def set_login(response: Response, parts: Parts, value: str, max_age: int) -> None:
    """Set the cookie of a sign-in under way, as `set_session`.

    Lax and not Strict: it must come back with a navigation that begins at the provider's site.
    """
    response.set_cookie(
        login_cookie(parts), value, max_age=max_age, path="/", secure=parts.secure, httponly=True, samesite="lax"
    )
    response.headers["cache-control"] = "no-store"
