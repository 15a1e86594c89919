"""Every security event and every reason: nothing else is ever written to an audit log.

Classes and activities are those of the Open Cybersecurity Schema Framework (OCSF) 1.6, so that what collects
logs elsewhere knows them. `docs/reference/audit-events.md` is written from this file.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum


class Status(IntEnum):
    """OCSF `status_id`."""

    SUCCESS = 1
    FAILURE = 2


class Severity(IntEnum):
    """OCSF `severity_id`."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class Class(Enum):
    """OCSF event classes with their `class_uid` and name; the thousands are the category."""

    ACCOUNT_CHANGE = (3001, "Account Change")
    AUTHENTICATION = (3002, "Authentication")
    AUTHORIZE_SESSION = (3003, "Authorize Session")
    ENTITY_MANAGEMENT = (3004, "Entity Management")
    USER_ACCESS = (3005, "User Access Management")
    APPLICATION_LIFECYCLE = (6002, "Application Lifecycle")
    API_ACTIVITY = (6003, "API Activity")

    @property
    def uid(self) -> int:
        """The `class_uid`."""
        return self.value[0]

    @property
    def caption(self) -> str:
        """The `class_name`."""
        return self.value[1]


CATEGORIES = {3: "Identity & Access Management", 6: "Application Activity"}
OTHER = 99
"""The `activity_id` of what OCSF has no number for; the name then says what it is."""


class Reason(StrEnum):
    """Why: fixed words, so that no text of a peer can get into the log."""

    UNSPECIFIED = "unspecified"
    # a credential that does not hold
    MALFORMED = "malformed"
    FORGED = "forged"
    UNKNOWN_KEY = "unknown-key"
    WRONG_TYPE = "wrong-type"
    WRONG_ISSUER = "wrong-issuer"
    WRONG_AUDIENCE = "wrong-audience"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REPLAYED = "replayed"
    STALE_NONCE = "stale-nonce"
    PROOF_FAILED = "proof-failed"
    NO_CREDENTIAL = "no-credential"
    # a sign-in that does not come about
    STATE_MISMATCH = "state-mismatch"
    NONCE_MISMATCH = "nonce-mismatch"
    PROVIDER_REFUSED = "provider-refused"
    PROVIDER_UNREACHABLE = "provider-unreachable"
    PROVIDER_TOKEN_REFUSED = "provider-token-refused"  # noqa: S105 - a reason, no secret
    NOT_ALLOWED = "not-allowed"
    SIGN_UP_CLOSED = "sign-up-closed"
    EMAIL_UNVERIFIED = "email-unverified"
    LINK_USED = "link-used"
    # what a known caller may not do
    CROSS_SITE = "cross-site"
    NOT_OWNER = "not-owner"
    NOT_ADMIN = "not-admin"
    KEY_SCOPE = "key-scope"
    WRONG_CREDENTIAL = "wrong-credential"
    # pairing
    WRONG_CODE = "wrong-code"
    DENIED = "denied"
    TOO_MANY_ATTEMPTS = "too-many-attempts"
    TOO_MANY_BRIDGES = "too-many-bridges"
    # limits
    LIMIT_ADDRESS = "limit-address"
    LIMIT_CONNECTIONS = "limit-connections"
    LIMIT_PAIRING = "limit-pairing"
    LIMIT_SIGN_IN = "limit-sign-in"
    LIMIT_KEYS = "limit-keys"
    LIMIT_USER = "limit-user"
    LIMIT_KEY = "limit-key"
    CAPACITY = "capacity"
    # ends of sessions and proxies
    BY_USER = "by-user"
    BY_OPERATOR = "by-operator"
    BY_PROVIDER = "by-provider"
    IDLE = "idle"
    SURPLUS = "surplus"
    DRAIN = "drain"
    UNRESPONSIVE = "unresponsive"
    DIED = "died"
    STRAY = "stray"
    START_FAILED = "start-failed"


_CREDENTIAL = (
    Reason.MALFORMED, Reason.FORGED, Reason.UNKNOWN_KEY, Reason.WRONG_TYPE, Reason.WRONG_ISSUER,
    Reason.WRONG_AUDIENCE, Reason.EXPIRED, Reason.REVOKED, Reason.REPLAYED, Reason.STALE_NONCE, Reason.PROOF_FAILED,
    Reason.NO_CREDENTIAL,
)  # fmt: skip
_SIGN_IN = (
    Reason.STATE_MISMATCH, Reason.NONCE_MISMATCH, Reason.PROVIDER_REFUSED, Reason.PROVIDER_UNREACHABLE,
    Reason.PROVIDER_TOKEN_REFUSED, Reason.NOT_ALLOWED, Reason.SIGN_UP_CLOSED, Reason.EMAIL_UNVERIFIED,
    Reason.LINK_USED, Reason.MALFORMED, Reason.FORGED, Reason.EXPIRED, Reason.REPLAYED, Reason.REVOKED,
)  # fmt: skip
_LIMITS = (
    Reason.LIMIT_ADDRESS, Reason.LIMIT_CONNECTIONS, Reason.LIMIT_PAIRING, Reason.LIMIT_SIGN_IN, Reason.LIMIT_KEYS,
    Reason.LIMIT_USER, Reason.LIMIT_KEY, Reason.CAPACITY,
)  # fmt: skip
_END = (Reason.BY_USER, Reason.BY_OPERATOR, Reason.BY_PROVIDER, Reason.EXPIRED, Reason.REVOKED)


@dataclass(frozen=True, slots=True)
class Kind:
    """What an event is."""

    code: str
    """Its name in the log (`metadata.event_code`)."""
    class_: Class
    activity_id: int
    activity: str
    status: Status
    severity: Severity
    meaning: str
    """For the reference page."""
    reasons: tuple[Reason, ...] = ()
    """Those that it may give; UNSPECIFIED besides."""
    entity: str = ""
    """The kind of thing that `about` names; empty when there is none."""
    frequent: bool = False
    """Whether strangers can cause any number of it; then only the first of a minute are written one by one."""

    @property
    def type_uid(self) -> int:
        """OCSF `type_uid`."""
        return self.class_.uid * 100 + self.activity_id


_OK, _NO = Status.SUCCESS, Status.FAILURE
_INFO, _LOW, _MEDIUM, _HIGH, _CRITICAL = Severity
_AUTH, _ENTITY, _API, _LIFE = (
    Class.AUTHENTICATION, Class.ENTITY_MANAGEMENT, Class.API_ACTIVITY, Class.APPLICATION_LIFECYCLE,
)  # fmt: skip


class Event(Enum):
    """The events."""

    # --- people
    SIGN_IN = Kind("sign-in", _AUTH, 1, "Logon", _OK, _INFO, "Somebody signed in with the provider.")
    LINK_SIGN_IN = Kind("link-sign-in", _AUTH, 1, "Logon", _OK, _INFO, "The owner signed in with a one-time link.")
    SIGN_IN_REFUSED = Kind(
        "sign-in-refused", _AUTH, 1, "Logon", _NO, _LOW, "A sign-in was refused.", _SIGN_IN, frequent=True
    )
    SIGN_IN_LINK_MADE = Kind(
        "sign-in-link-made", _AUTH, 3, "Authentication Ticket", _OK, _INFO, "A one-time sign-in link was made."
    )
    SIGN_OUT = Kind("sign-out", _AUTH, 2, "Logoff", _OK, _INFO, "A session was ended.", _END)
    SESSIONS_REVOKED = Kind(
        "sessions-revoked", _AUTH, 2, "Logoff", _OK, _MEDIUM, "All sessions of a user were ended.", _END
    )
    CREDENTIAL_REFUSED = Kind(
        "credential-refused", _AUTH, 1, "Logon", _NO, _LOW,
        "A session, API key or bridge credential did not hold.", _CREDENTIAL, "credential", frequent=True,
    )  # fmt: skip
    SERVICE_TOKEN_REFUSED = Kind(
        "service-token-refused", _AUTH, 1, "Logon", _NO, _HIGH,
        "A caller between services had no token that holds.", _CREDENTIAL, "service", frequent=True,
    )  # fmt: skip
    ADMIN_SESSION = Kind(
        "admin-session", Class.AUTHORIZE_SESSION, 1, "Assign Privileges", _OK, _LOW,
        "A session was given the rights of an administrator.",
    )  # fmt: skip
    ADMIN_GRANTED = Kind(
        "admin-granted", Class.USER_ACCESS, 1, "Assign Privileges", _OK, _MEDIUM, "A user became administrator."
    )
    USER_DISABLED = Kind(
        "user-disabled",
        Class.ACCOUNT_CHANGE,
        5,
        "Disable",
        _OK,
        _MEDIUM,
        "A user was shut out.",
        (Reason.BY_OPERATOR,),
    )
    USER_ENABLED = Kind("user-enabled", Class.ACCOUNT_CHANGE, 2, "Enable", _OK, _MEDIUM, "A user was let in again.")
    # --- bridges
    PAIRING_REQUESTED = Kind(
        "pairing-requested", _ENTITY, 1, "Create", _OK, _INFO, "A machine asked to be paired.", entity="pairing",
        frequent=True,
    )  # fmt: skip
    PAIRING_APPROVED = Kind(
        "pairing-approved", _ENTITY, 8, "Enable", _OK, _LOW, "A user approved a pairing.", entity="pairing"
    )
    PAIRING_DENIED = Kind(
        "pairing-denied", _ENTITY, 9, "Disable", _OK, _LOW, "A user denied a pairing.", entity="pairing"
    )
    PAIRING_COMPLETED = Kind(
        "pairing-completed", _ENTITY, 6, "Enroll", _OK, _LOW, "A bridge got its credential.", entity="bridge"
    )
    PAIRING_REFUSED = Kind(
        "pairing-refused", _ENTITY, 6, "Enroll", _NO, _LOW, "A pairing did not come about.",
        (Reason.WRONG_CODE, Reason.EXPIRED, Reason.DENIED, Reason.REPLAYED, Reason.PROOF_FAILED, Reason.MALFORMED,
         Reason.TOO_MANY_ATTEMPTS, Reason.TOO_MANY_BRIDGES), "pairing", frequent=True,
    )  # fmt: skip
    BRIDGE_RENAMED = Kind("bridge-renamed", _ENTITY, 5, "Move", _OK, _INFO, "A bridge was renamed.", entity="bridge")
    BRIDGE_REVOKED = Kind(
        "bridge-revoked", _ENTITY, 7, "Unenroll", _OK, _LOW, "A bridge was revoked.", _END, "bridge"
    )
    CREDENTIAL_RENEWED = Kind(
        "credential-renewed", _ENTITY, 3, "Update", _OK, _INFO, "A bridge's credential was renewed.", entity="bridge"
    )
    # --- API keys
    KEY_MADE = Kind("key-made", _ENTITY, 1, "Create", _OK, _LOW, "An API key was made.", entity="key")
    KEY_FIRST_USED = Kind(
        "key-first-used", _ENTITY, 10, "Activate", _OK, _INFO,
        "An API key was used for the first time, as far as this process knows.", entity="key", frequent=True,
    )  # fmt: skip
    KEY_REVOKED = Kind("key-revoked", _ENTITY, 4, "Delete", _OK, _LOW, "An API key was revoked.", _END, "key")
    # --- what is refused
    FORBIDDEN = Kind(
        "forbidden", _API, OTHER, "Refuse", _NO, _LOW, "A known caller asked for what it may not.",
        (Reason.CROSS_SITE, Reason.NOT_OWNER, Reason.NOT_ADMIN, Reason.KEY_SCOPE, Reason.WRONG_CREDENTIAL),
        frequent=True,
    )  # fmt: skip
    LIMIT_HIT = Kind("limit-hit", _API, OTHER, "Limit", _NO, _LOW, "A limit was reached.", _LIMITS, frequent=True)
    HOST_REFUSED = Kind(
        "host-refused", _API, OTHER, "Refuse", _NO, _LOW, "A request named a host that is not served.", frequent=True
    )
    # --- operation
    ADMIN_ACTION = Kind("admin-action", _API, 3, "Update", _OK, _MEDIUM, "An administrator changed something.",
                        entity="action")  # fmt: skip
    SERVICE_STARTED = Kind(
        "service-started", _LIFE, 3, "Start", _OK, _INFO, "A service started, with these settings set."
    )
    SERVICE_STOPPED = Kind("service-stopped", _LIFE, 4, "Stop", _OK, _INFO, "A service was told to stop.")
    CONFIGURATION_CHANGED = Kind(
        "configuration-changed", _LIFE, 8, "Update", _OK, _MEDIUM, "The settings differ from those of the last start."
    )
    SERVICE_KEYS_ROTATED = Kind(
        "service-keys-rotated", _ENTITY, 3, "Update", _OK, _LOW, "A service has a new key pair.", entity="service"
    )
    PROXY_MADE = Kind("proxy-made", _ENTITY, 1, "Create", _OK, _INFO, "A proxy is ready.", entity="proxy")
    PROXY_ASSIGNED = Kind("proxy-assigned", _ENTITY, 10, "Activate", _OK, _INFO, "A spare proxy became a user's.",
                          entity="proxy")  # fmt: skip
    PROXY_ADOPTED = Kind("proxy-adopted", _ENTITY, 13, "Resume", _OK, _INFO,
                         "A proxy of an earlier manager was taken over.", entity="proxy")  # fmt: skip
    PROXY_REMOVED = Kind("proxy-removed", _ENTITY, 4, "Delete", _OK, _INFO, "A proxy was ended as it should be.",
                         (Reason.IDLE, Reason.SURPLUS, Reason.DRAIN, Reason.BY_USER), "proxy")  # fmt: skip
    PROXY_KILLED = Kind(
        "proxy-killed", _ENTITY, 4, "Delete", _NO, _MEDIUM, "A proxy died, or was ended by force.",
        (Reason.UNRESPONSIVE, Reason.DIED, Reason.STRAY, Reason.START_FAILED), "proxy", frequent=True,
    )  # fmt: skip
    # --- the log itself
    AUDIT_RECOVERED = Kind("audit-recovered", _LIFE, 5, "Restart", _OK, _MEDIUM,
                           "The log was taken up after its writer had been killed.")  # fmt: skip
    AUDIT_GAP = Kind("audit-gap", _LIFE, OTHER, "Lose", _NO, _HIGH,
                     "Events came faster than they could be written; `count` of them are missing.")  # fmt: skip
    AUDIT_DAMAGED = Kind("audit-damaged", _LIFE, OTHER, "Set aside", _NO, _CRITICAL,
                         "The log did not fit its checkpoints; it was set aside and a new one begun.")  # fmt: skip

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.value
