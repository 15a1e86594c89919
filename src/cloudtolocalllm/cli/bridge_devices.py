"""`cloudtolocalllm bridge pair-device`, `devices`, `new-identity`: who may use this home, told by its owner.

They write into the home store whether the bridge runs or not; one that runs notices it at once.
"""

import argparse
import secrets
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cloudtolocalllm.bridge.gateway.identity import fingerprint_of, identity_path, load_identity, replace_identity
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError
from cloudtolocalllm.bridge.store import database, devices, lock, offers
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.devices import BY_LINK, BY_LOCAL, Device
from cloudtolocalllm.bridge.store.errors import NotHereError, StoreError
from cloudtolocalllm.bridge.store.key_place import SETTING
from cloudtolocalllm.bridge.store.lock import StoreLock
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.cli.bridge import qr_code
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.settings import environment
from cloudtolocalllm.sealed import fingerprint
from cloudtolocalllm.sealed.pairing import OFFER_LIFE, SECRET_BYTES, PairingLink
from cloudtolocalllm.sealed.safety_words import safety_words

T = TypeVar("T")

SHORTEST_ID = 6
"""Characters of a device's id that name it, if they name one only."""
WARNING = """\
A new identity makes this home a stranger to every device: each refuses to speak to it until it is paired anew, and
the list of devices is emptied. Conversations, keys and settings stay. It is for when somebody else may have the
present identity's file; a device that was lost is put out by: cloudtolocalllm bridge devices --remove ID"""


@dataclass(frozen=True, slots=True)
class LocalHome:
    """The home of one bridge of this machine."""

    credential: Path
    bridge: BridgeIdentity

    @property
    def store(self) -> Path:
        """The home store."""
        return home_path(self.credential)

    @property
    def place(self) -> str:
        """Where the store's key lies, if not where the note beside it says; else ""."""
        return environment().get(SETTING, "")

    @property
    def fingerprint(self) -> bytes:
        """Of its identity, which is made if there never was one.

        Raises:
            PairingError: It cannot be read or written.
            StoreError: The store cannot be opened.
        """
        return fingerprint_of(load_identity(self.credential, place=self.place))

    def do(self, work: Callable[[Tx], T]) -> T:
        """Have something done in the store, whole or not at all.

        Raises:
            StoreError: It cannot be done.
        """
        with _opened(self.store, self.place) as db:
            return work(Tx(db, SystemClock().wall()))

    def offer(self) -> PairingLink:
        """Return a new pairing link, which the bridge takes out of the store.

        Raises:
            PairingError: The identity cannot be read or written.
            StoreError: There are too many links, or the store cannot be written.
        """
        secret = secrets.token_bytes(SECRET_BYTES)
        link = PairingLink(self.bridge.bridge_id, self.fingerprint, secret)
        self.do(lambda tx: offers.add(tx, secret))
        return link


def pair_device(options: argparse.Namespace) -> int:
    """Print a link that pairs one device."""
    try:
        home = home_of(options)
        link = home.offer()
    except (PairingError, StoreError) as error:
        return _fail(error)
    url = f"{home.bridge.server.rstrip('/')}/pair#{link.fragment}"
    print(f"""
Open this on the device that is to use this home, or give it to `cloudtolocalllm connect`:

  {url}

or scan this:

{qr_code(url)}
It pairs one device, within {OFFER_LIFE // 60} minutes. Whoever opens it first is let in: show it to nobody else.
""", flush=True)  # fmt: skip
    if not lock.is_held(home.store):
        sys.stderr.write("The bridge does not run now; start it within that time: cloudtolocalllm bridge run\n")
    return 0


def list_devices(options: argparse.Namespace) -> int:
    """Print the devices, or remove, rename or approve one."""
    try:
        home = home_of(options)
        if options.remove:
            removed = _one(home, options.remove)
            home.do(lambda tx: devices.remove(tx, removed.id))
            print(f"{_shown(removed.name)} is not let in any more; its key never is again.")
        elif options.rename:
            renamed = _one(home, options.rename[0])
            home.do(lambda tx: devices.rename(tx, renamed.id, options.rename[1]))
        elif options.approve:
            approved = _one(home, options.approve)
            home.do(lambda tx: devices.approve(tx, approved.id, approved_by=BY_LOCAL))
            print(f"{_shown(approved.name)} is let in.")
        else:
            _print(home)
    except (PairingError, StoreError) as error:
        return _fail(error)
    return 0


def new_identity(options: argparse.Namespace) -> int:
    """Give the home a new identity, by which no device knows it."""
    try:
        home = home_of(options)
        held = StoreLock(home.store)
        held.acquire(wait=0.5)
    except (PairingError, StoreError) as error:
        return _fail(error)
    try:
        if not options.yes:
            print(WARNING + "\n")
            if not sys.stdin.isatty() or not _confirmed():
                return _fail("nothing was changed; to do it without being asked, give --yes")
        # The devices first: whatever comes between, none is left that knows only the old one.
        forgotten = home.do(_forget)
        replace_identity(identity_path(home.credential))
    except (PairingError, StoreError) as error:
        return _fail(error)
    finally:
        held.release()
    print(f"This home has a new identity. {forgotten} devices were forgotten; pair each again: "
          "cloudtolocalllm bridge pair-device")  # fmt: skip
    return 0


# --- parts ---


def _forget(tx: Tx) -> int:
    """Forget every device, and the links that no bridge has taken yet."""
    offers.take_all(tx)
    return devices.forget_all(tx)


def _print(home: LocalHome) -> None:
    found = home.do(devices.all_of)
    if not found:
        print("No device is paired. Pair one: cloudtolocalllm bridge pair-device")
    for device in found:
        seen = "never seen" if device.last_seen is None else f"last seen {_date(device.last_seen)}"
        by = {BY_LINK: "by a link", BY_LOCAL: "approved here"}.get(device.approved_by, "approved by another device")
        state = by if device.paired else "WAITS to be let in"
        print(
            "  ".join(
                (device.id, _shown(device.name), _date(device.added), state, seen if device.paired else "")
            ).rstrip()
        )
        if not device.paired:
            words = safety_words(home.fingerprint, fingerprint.decode(device.id))
            print(f"    Only if it shows these words: {' '.join(words)}")
            print(f"    let it in: cloudtolocalllm bridge devices --approve {device.id}")


def _one(home: LocalHome, said: str) -> Device:
    """Return the device that is meant, by its id or the beginning of it.

    Raises:
        NotHereError: None or several are.
    """
    found = [each for each in home.do(devices.all_of) if each.id.startswith(said)]
    exact = [each for each in found if each.id == said]
    if exact:
        return exact[0]
    if len(found) != 1 or len(said) < SHORTEST_ID:
        raise NotHereError("expected the id of a device; see them with: cloudtolocalllm bridge devices")
    return found[0]


def home_of(options: argparse.Namespace) -> LocalHome:
    """Return the home that is meant.

    Raises:
        PairingError: There is none, or several.
    """
    given = environment().get("C2L_BRIDGE_CREDENTIAL_FILE")
    if given and not options.server:
        return LocalHome(Path(given), BridgeIdentity.load(Path(given)))
    found = []
    for path in sorted(options.data_dir.glob("*.json")):
        try:
            home = LocalHome(path, BridgeIdentity.load(path))
        except PairingError:
            continue
        if not options.server or home.bridge.server.rstrip("/") == options.server.rstrip("/"):
            found.append(home)
    if len(found) != 1:
        state = "no bridge that is paired" if not found else "several"
        raise PairingError(
            f"expected one bridge in {options.data_dir}, got {state}; name its server by --server, or its folder by "
            "--data-dir"
        )
    return found[0]


@contextmanager
def _opened(path: Path, place: str) -> Iterator[sqlite3.Connection]:
    """Open the store for one transaction.

    Raises:
        StoreError: It cannot be opened or written.
    """
    db = database.connect(path, place=place, check=False, aside=False)
    try:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")
    except sqlite3.Error as error:
        raise database.translated(error, path) from error
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.close()


def _confirmed() -> bool:
    try:
        return input("Make a new identity? Type yes: ").strip() == "yes"
    except EOFError:
        return False


def _shown(name: str) -> str:
    """Return a name that a device chose, without what a terminal would obey: none may hide itself from this list."""
    return "".join(each if each.isprintable() else "?" for each in name)


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _fail(reason: object) -> int:
    sys.stderr.write(f"cloudtolocalllm bridge: {reason}\n")
    return 1
