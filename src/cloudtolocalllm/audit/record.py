"""One event as one line of JSON, with OCSF's members.

Every member is a number, a word of ours, or an identifier that must look like one: what a peer sends (a body, a
model's name, a token, an e-mail address, a name) has no way in.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm import __version__
from cloudtolocalllm.audit.events import CATEGORIES, Class, Event, Reason

OCSF_VERSION = "1.6.0"
PRODUCT = "CloudToLocalLLM"
MAX_SETTINGS = 100
"""Names of settings in one record at most."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""Neither dots nor @: no address of mail, host or network fits, and no token of ours (they have dots)."""
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, before it is written."""

    event: Event
    time: float
    """Seconds since the epoch; of the first, when it stands for several."""
    user: str | None = None
    """Pseudonym of who acts; None when nobody is known."""
    reason: Reason | None = None
    request_id: str | None = None
    about: str | None = None
    """Identifier of the thing that it happened to."""
    source: str | None = None
    """Where it came from, as AddressCloak made it."""
    count: int = 1
    until: float | None = None
    """Seconds since the epoch of the last, when it stands for several."""
    settings: Sequence[str] = ()
    """Names of settings that are set; never values."""
    digest: str | None = None
    """Keyed hash of the settings."""
    target: str | None = None
    """Pseudonym of the user that it is done to, when that is not who acts."""


def identifier(text: str | None) -> str | None:
    """Return the text if it is an identifier, "invalid" if it is anything else, None for None."""
    if text is None:
        return None
    return text if _ID.fullmatch(text) else "invalid"


def line_of(entry: Entry, *, uid: str, service: str) -> bytes:
    """Return the record, without a newline.

    Args:
        entry: What happened.
        uid: Its own identifier.
        service: Which service says so, such as "api".

    Raises:
        ValueError: The event does not give this reason.
    """
    kind = entry.event.kind
    if entry.reason not in (None, Reason.UNSPECIFIED) and entry.reason not in kind.reasons:
        raise ValueError(f"expected one of the reasons of {kind.code}, got {entry.reason}")
    category = kind.class_.uid // 1000
    value: dict[str, Any] = {
        "time": round(entry.time * 1000),
        "class_uid": kind.class_.uid,
        "class_name": kind.class_.caption,
        "category_uid": category,
        "category_name": CATEGORIES[category],
        "activity_id": kind.activity_id,
        "activity_name": kind.activity,
        "type_uid": kind.type_uid,
        "severity_id": int(kind.severity),
        "severity": kind.severity.name.capitalize(),
        "status_id": int(kind.status),
        "status": kind.status.name.capitalize(),
        "metadata": _metadata(entry, uid),
    }
    if entry.reason is not None:
        value["status_code"] = entry.reason.value
    if entry.until is not None:
        value |= {"count": entry.count, "start_time": value["time"], "end_time": round(entry.until * 1000)}
    value |= _who_and_what(entry, service)
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _metadata(entry: Entry, uid: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "version": OCSF_VERSION,
        "uid": uid,
        "event_code": entry.event.kind.code,
        "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": __version__},
    }
    if entry.request_id is not None:
        metadata["correlation_uid"] = identifier(entry.request_id)
    return metadata


def _who_and_what(entry: Entry, service: str) -> dict[str, Any]:
    """Return the members that the event's class asks for."""
    kind = entry.event.kind
    user = {"uid": identifier(entry.user) or _UNKNOWN}
    value: dict[str, Any] = {}
    if entry.user is not None or kind.class_ is Class.API_ACTIVITY:
        value["actor"] = {"user": user}
    if entry.source is not None or kind.class_ is Class.API_ACTIVITY:
        value["src_endpoint"] = {"uid": identifier(entry.source) or _UNKNOWN}
    if kind.class_ in (Class.AUTHENTICATION, Class.ACCOUNT_CHANGE, Class.AUTHORIZE_SESSION, Class.USER_ACCESS):
        value["user"] = user if entry.target is None else {"uid": identifier(entry.target)}
    if kind.class_ in (Class.AUTHORIZE_SESSION, Class.USER_ACCESS):
        value["privileges"] = ["admin"]
    if kind.class_ is Class.AUTHENTICATION:
        value["service"] = {"name": service}
    elif kind.class_ is Class.API_ACTIVITY:
        value["api"] = {"operation": kind.code, "service": {"name": service}}
    elif kind.class_ is Class.APPLICATION_LIFECYCLE:
        value["app"] = {"name": service, "vendor_name": PRODUCT, "version": __version__}
    if kind.entity:
        # 99 is "Other": OCSF numbers people's devices, groups and policies, not keys and proxies
        value["entity"] = {"type_id": 99, "type": kind.entity, "uid": identifier(entry.about) or _UNKNOWN}
    if entry.settings or entry.digest:
        names = [name for name in entry.settings if _ID.fullmatch(name)][:MAX_SETTINGS]
        value["unmapped"] = {"settings": names, "digest": identifier(entry.digest) or ""}
    return value
