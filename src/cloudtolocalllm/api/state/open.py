"""Which adapter it is: from one setting."""

import logging
from pathlib import Path

from cloudtolocalllm.api.bus import Bus, LocalBus
from cloudtolocalllm.api.state.port import State, StateError, StateUnavailableError
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

MAX_URL = 4096
"""Bytes of a file that holds a URL."""


def read_url(setting: str) -> str:
    """Return the URL that a setting says: itself, or what the file holds that it names as "file:/path".

    Raises:
        StateError: The file cannot be read. The text does not say what is in it.
    """
    setting = setting.strip()
    if not setting.startswith("file:"):
        return setting
    path = Path(setting.removeprefix("file:").removeprefix("//"))
    try:
        with path.open("rb") as file:
            text = file.read(MAX_URL).decode().strip()
    except OSError as error:
        raise StateError(f"expected the URL of the state in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StateError(f"expected the URL of the state in {path}, got no text") from None
    if not text:
        raise StateError(f"expected the URL of the state in {path}, got nothing")
    return text


async def open_state(setting: str, sqlite_path: Path, clock: Clock) -> State:
    """Return what the cloud remembers with.

    Args:
        setting: A URL of Redis, "file:/path" of a file that holds it, or empty for the embedded state.
        sqlite_path: The embedded state's file.
        clock: The embedded state's; Redis goes by its own.

    Raises:
        StateError: It cannot be used as it is.
    """
    url = read_url(setting)
    if not url:
        return SqliteState(sqlite_path, clock=clock)
    # an embedded cloud does without the package's eleven megabytes
    from cloudtolocalllm.api.state.redis import RedisState

    state = RedisState(url)
    try:
        await state.check()
    except StateUnavailableError as error:
        log.warning("the state does not answer yet", extra={"reason": str(error)})
    except BaseException:
        await state.close()
        raise
    return state


def open_bus(setting: str) -> Bus:
    """Return how the replicas tell each other what happened.

    Args:
        setting: As for `open_state`; empty for a bus within this process.

    Raises:
        StateError: The URL is none of ours.
    """
    url = read_url(setting)
    if not url:
        return LocalBus()
    from cloudtolocalllm.api.state.redis_bus import RedisBus

    return RedisBus(url)
