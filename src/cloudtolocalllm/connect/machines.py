"""The machines of an account, as its server lists them. What it says of them is believed by nobody: it names them."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.refusals import refused_in_the_clear
from cloudtolocalllm.contracts.problems import Problem

PATH: Final = "/api/streaming/status"
MAX_MACHINES: Final = 256
MAX_NAME: Final = 64
"""Characters of a name that are shown."""
_BRIDGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NO_LIST: Final = "The server did not list the account's machines; name one: --bridge ID."


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the account."""

    bridge_id: str
    name: str
    """Made harmless to print."""
    connected: bool


def checked_bridge_id(text: str) -> str:
    """Return a bridge's id.

    Raises:
        ValueError: It is none.
    """
    if not _BRIDGE_ID.fullmatch(text):
        raise ValueError("expected a bridge's id of letters, digits, - and _ after --bridge")
    return text


def read_machines(content: bytes) -> tuple[Machine, ...]:
    """Read the server's list; what is no machine in it is left out.

    Raises:
        ValueError: It is none.
    """
    try:
        document: Any = json.loads(content)
    except RecursionError:
        raise ValueError("expected a list of machines") from None
    match document:
        case {"bridges": list(found)}:
            pass
        case _:
            raise ValueError("expected a list of machines")
    return tuple(_machine(each) for each in found[:MAX_MACHINES] if _is_machine(each))


async def machines_of(link: ServerLink) -> tuple[Machine, ...]:
    """Ask the server for the machines of the API key's account.

    Raises:
        HomeError: It does not say.
    """
    response = await link.fetch("GET", PATH, ((b"accept", b"application/json"),))
    if response.status != 200:
        error = refused_in_the_clear(response.status, response.headers, response.body)
        if error.problem in (Problem.KEY_SCOPE, Problem.FORBIDDEN):
            raise HomeError(Fault.REFUSED, error.problem, f"{_NO_LIST} The API key is limited.") from None
        raise error
    try:
        return read_machines(response.body)
    except ValueError:
        raise HomeError(Fault.REFUSED, Problem.BRIDGE_OFFLINE, _NO_LIST) from None


def _is_machine(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("id"), str) and bool(_BRIDGE_ID.fullmatch(each["id"]))


def _machine(each: dict[str, Any]) -> Machine:
    said = each.get("name")
    name = "".join(c for c in said if c.isprintable())[:MAX_NAME].strip() if isinstance(said, str) else ""
    return Machine(each["id"], name or each["id"], each.get("connected") is True)
