"""What the pairing routes take and give, as OpenAPI shows it. Times are seconds since the epoch, UTC."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudtolocalllm.api.registry import MAX_NAME

_AT = 1_795_411_281
_JWK: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "x": "Ktrlzld1g2xqlQm9qz7wypKhB1DWPkv9aTxFo23O9vI"}
_ID = "4k7wq3hd2mzxv5np6rtsy2bcae"
_CREDENTIAL = "eyJhbGciOiJFZDI1NTE5In0.eyJzdWIiOiJrMnF4djdoZDRtM2EifQ.c2lnbmF0dXJl"

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def _example(**members: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [members]})


def _input(**members: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", str_strip_whitespace=True, json_schema_extra={"examples": [members]})


class PublicKey(BaseModel):
    """A bridge's public key (RFC 8037): Ed25519 and nothing else, without any private member."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_JWK]})

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]


MachineName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"\S", examples=["Desktop"])]
Version = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9.+_-]*$", examples=["0.1.0"])]


class DeviceAsk(BaseModel):
    """A machine that wants to be paired by a short code."""

    model_config = _input(name="Desktop", version="0.1.0", jwk=_JWK)

    name: MachineName
    version: Version = ""
    jwk: PublicKey


class DeviceAnswer(BaseModel):
    """As RFC 8628 §3.2."""

    model_config = _example(
        device_code=f"{_ID}.OZFdNxEaz5lKY2resCWIIjlt-jrl43m5wttohbF5w0I", user_code="BCDF-GHJK",
        verification_uri="https://app.example.org/pair",
        verification_uri_complete="https://app.example.org/pair?code=BCDF-GHJK", expires_in=300, interval=2,
    )  # fmt: skip

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    """Seconds."""
    interval: int
    """Seconds between two questions for the credential."""


class LoopbackAsk(BaseModel):
    """A machine whose own browser confirms the pairing (RFC 8252, RFC 7636)."""

    model_config = _input(
        name="Desktop", version="0.1.0", jwk=_JWK, redirect_uri="http://127.0.0.1:49152/callback",
        code_challenge="E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", state="xyzXYZ0123456789",
    )  # fmt: skip

    name: MachineName
    version: Version = ""
    jwk: PublicKey
    redirect_uri: Annotated[str, Field(max_length=120)]
    """http, on 127.0.0.1, [::1] or localhost, with a port."""
    code_challenge: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    """Method S256."""
    state: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,128}$")]


class LoopbackAnswer(BaseModel):
    """Where the browser goes."""

    model_config = _example(
        request=_ID, authorization_uri=f"https://app.example.org/pair?request={_ID}", expires_in=300
    )

    request: str
    authorization_uri: str
    expires_in: int
    """Seconds."""


class PairingRequest(BaseModel):
    """What the person who decides is shown."""

    model_config = _example(
        name="Desktop", address="203.0.113.7", requested=_AT, version="0.1.0", expires=_AT + 300, kind="device",
        user_code="BCDF-GHJK",
    )  # fmt: skip

    name: str
    """As the machine calls itself: anybody may choose any name."""
    address: str
    """Where the request came from; empty when it is not known."""
    requested: float
    version: str
    expires: float
    kind: Literal["device", "loopback"]
    user_code: str | None


class Decided(BaseModel):
    """Where the page goes after the decision."""

    model_config = _example(redirect_to=f"http://127.0.0.1:49152/callback?code={_ID}.OZFd&state=xyzXYZ0123456789")

    redirect_to: str | None
    """None: nowhere; the machine asks by itself."""


class TokenAsk(BaseModel):
    """How a machine collects its credential; the request carries a DPoP proof by its key (RFC 9449)."""

    model_config = _input(grant_type=DEVICE_GRANT, device_code=f"{_ID}.OZFdNxEaz5lKY2resCWIIjlt-jrl43m5wttohbF5w0I")

    grant_type: Literal["urn:ietf:params:oauth:grant-type:device_code", "authorization_code"]
    device_code: Annotated[str, Field(max_length=200)] = ""
    code: Annotated[str, Field(max_length=200)] = ""
    code_verifier: Annotated[str, Field(max_length=128)] = ""


class NewBridgeAsk(BaseModel):
    """A machine that is paired without a person's help."""

    model_config = _input(name="Desktop", jwk=_JWK)

    name: MachineName
    jwk: PublicKey


class NewCredential(BaseModel):
    """A bridge's credential, bound to its key; the only time that it is shown."""

    model_config = _example(bridge_id="k2qxv7hd4m3a", credential=_CREDENTIAL, expires=_AT)

    bridge_id: str
    credential: str
    expires: int
