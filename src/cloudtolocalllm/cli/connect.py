"""`cloudtolocalllm connect`: the models of one's homes on this computer, sealed end to end."""

import argparse
import asyncio
import contextlib
import getpass
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cloudtolocalllm.cli.connect_words import NO_TERMINAL, by_words
from cloudtolocalllm.connect.address import ServerAddress, read_invitation
from cloudtolocalllm.connect.check import check
from cloudtolocalllm.connect.errors import HomeError
from cloudtolocalllm.connect.homes import Homes, find, key_name, renamed
from cloudtolocalllm.connect.machines import checked_bridge_id
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.pairing import NewHome, clean_name, pair
from cloudtolocalllm.connect.paths import STATUS_PATH
from cloudtolocalllm.connect.service import (
    Connect,
    NoHomeError,
    PortTakenError,
    checked_key,
    homes_folder,
    keys_folder,
    serve,
)
from cloudtolocalllm.connect.settings import ConnectSettings
from cloudtolocalllm.connect.vault import Vault, open_vault
from cloudtolocalllm.connect.watch import Watch
from cloudtolocalllm.connect.words import LONGEST_WAIT, pin
from cloudtolocalllm.runtime import lifecycle, logs
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch
from cloudtolocalllm.runtime.keychain import StorageError
from cloudtolocalllm.runtime.settings import SettingsError, environment, load
from cloudtolocalllm.runtime.tasks import TaskSet

PREFIX = "C2L_CONNECT_"
NOT_PAIRED = 2
"""Exit status, as of a wrong command line: there is nothing to connect to."""
NOT_RUNNING = 3
STATUS_TIMEOUT = 5.0
"""Seconds."""


def run_connect(options: argparse.Namespace) -> int:
    """Serve until told to stop; pair before, or only check, if the options say so."""
    try:
        if options.pair is not None:
            _add(options, options.pair)
        settings = _settings(options, environment())
        if options.check:
            return _check(settings)
        logs.configure("connect", level=environment().get("C2L_LOG_LEVEL", "INFO").upper(), stream=sys.stderr)
        _warn_of_files(settings)
        leash = settings.leash_fd
        lifecycle.run(lambda stop: serve(settings, stop), leash=leash if leash is not None and leash >= 0 else None)
    except (NoHomeError, SettingsError) as error:
        return _fail(error, NOT_PAIRED)
    except (HomeError, StorageError, PortTakenError, ValueError) as error:
        return _fail(error)
    return 0


def connect_add(options: argparse.Namespace) -> int:
    """Pair this computer with a home."""
    try:
        if options.link is None and (options.server or options.bridge):
            _add_by_words(options)
        else:
            _add(options, options.link or "-")
    except NoHomeError as error:
        return _fail(error, NOT_PAIRED)
    except (HomeError, StorageError, ValueError) as error:
        return _fail(error)
    print("Start it: cloudtolocalllm connect")
    return 0


def connect_list(options: argparse.Namespace) -> int:
    """Print the homes."""
    try:
        homes = Homes(homes_folder(options.data_dir.absolute())).load()
    except StorageError as error:
        return _fail(error)
    for number, home in enumerate(homes, 1):
        added = datetime.fromtimestamp(home.added, UTC).astimezone().strftime("%Y-%m-%d")
        print(f"{number}  {home.name}  {home.server}  bridge {home.bridge_id}  "
              f"priority {home.priority}  device {home.device_id}  since {added}")  # fmt: skip
    if not homes:
        sys.stderr.write("This computer is paired with no home: cloudtolocalllm connect add\n")
    return 0


def connect_set(options: argparse.Namespace) -> int:
    """Rename a home, give it another priority, or its server another API key."""
    data_dir = options.data_dir.absolute()
    homes = Homes(homes_folder(data_dir))
    try:
        home = find(homes.load(), options.home)
        if options.key_file is not None:
            key = _key_of_file(options.key_file)
            _vault(data_dir, use_keyring=_keyring_wanted(options, environment())).put(key_name(home.server), key)
        homes.save(renamed(home, clean_name(options.name) if options.name else None, options.priority))
    except StorageError as error:
        return _fail(error)
    return 0


def connect_remove(options: argparse.Namespace) -> int:
    """Forget a home, this computer's key for it, and the server's API key when no other home needs it."""
    data_dir = options.data_dir.absolute()
    homes = Homes(homes_folder(data_dir))
    try:
        home = find(homes.load(), options.home)
        vault = _vault(data_dir, use_keyring=_keyring_wanted(options, environment()))
        homes.remove(home)
        vault.remove(home.secret_name)
        if all(other.server != home.server for other in homes.load()):
            vault.remove(key_name(home.server))
    except StorageError as error:
        return _fail(error)
    print("It is forgotten here. Remove this computer from the home's list of devices too.")
    return 0


def connect_status(options: argparse.Namespace) -> int:
    """Print how the homes of the endpoint that runs are."""
    try:
        document = asyncio.run(_ask_status(options.port))
    except (HttpError, OSError, TimeoutError, ValueError):
        return _fail(f"nothing of ours answers on port {options.port}", NOT_RUNNING)
    if options.json:
        print(json.dumps(document))
    else:
        for home in document["homes"]:
            models = "models not listed yet" if home["models"] is None else f"{home['models']} models"
            state = f"ok   {models}, {home['requests']} requests" if home["up"] else f"AWAY {home['why']}"
            print(f"{home['name']:24} {state}")
    return 0 if all(home["up"] for home in document["homes"]) else 1


# --- pairing ---


def _add(options: argparse.Namespace, text: str) -> None:
    if getattr(options, "bridge", None):
        raise ValueError("expected --bridge without a link: a link names its machine")
    server, invitation = read_invitation(_link_text(text), options.server or "")
    vault, key, keep, new = _ready(options, server)
    homes = Homes(homes_folder(options.data_dir.absolute()))

    async def run() -> str:
        tasks, clock = TaskSet(), SystemClock()
        link = ServerLink(server, key, Watch(tasks, clock), clock)
        try:
            home = await pair(link, invitation, new, homes, vault, clock)
        finally:
            await link.close()
            await tasks.close()
        return home.name

    with _kept(vault, key_name(server.url), key if keep else ""):
        name = asyncio.run(run())
    _tell_paired(name, vault)


def _add_by_words(options: argparse.Namespace) -> None:
    """Pair without a link. Nothing is kept before it has come to a good end, the API key neither."""
    if not options.server:
        raise ValueError("expected --server URL with --bridge")
    wait = options.wait * 60
    if not 0 < wait <= LONGEST_WAIT:
        raise ValueError(f"expected --wait of more than 0 and at most {LONGEST_WAIT / 60:g} minutes")
    server = ServerAddress.parse(options.server)
    bridge = checked_bridge_id(options.bridge) if options.bridge else ""
    if not sys.stdin.isatty():
        raise NoHomeError(NO_TERMINAL)
    vault, key, keep, new = _ready(options, server)
    homes = Homes(homes_folder(options.data_dir.absolute()))
    met = by_words(server, key, bridge, new, homes, wait)
    with _kept(vault, key_name(server.url), key if keep else ""):
        pin(met, homes, vault)
    _tell_paired(met.home.name, vault)


def _ready(options: argparse.Namespace, server: ServerAddress) -> tuple[Vault, str, bool, NewHome]:
    """Return what pairing needs: where keys are kept, the API key, whether it is to be kept, and the names."""
    data_dir: Path = options.data_dir.absolute()
    environ = environment()
    vault, sentence = open_vault(keys_folder(data_dir), use_keyring=_keyring_wanted(options, environ))
    if sentence:
        sys.stderr.write(sentence + "\n")
    if not server.is_private:
        sys.stderr.write("The server is not reached by https: its API key can be read on the way there.\n")
    key, keep = _key(options, environ, server, vault)
    new = NewHome(
        options.name or environ.get(f"{PREFIX}NAME") or ConnectSettings(data_dir).name,
        options.home_name or "",
        options.priority,
    )
    return vault, key, keep, new


def _tell_paired(name: str, vault: Vault) -> None:
    sys.stderr.write(f"This computer is paired with {name}. Its key is kept in {vault.place}.\n")


@contextlib.contextmanager
def _kept(vault: Vault, name: str, key: str) -> Iterator[None]:
    """Keep an API key before its home: an endpoint that runs looks for it as soon as the home is there.

    Args:
        vault: Where.
        name: Under which name.
        key: "" to leave what is there.
    """
    before = vault.get(name) if key else None
    if key:
        vault.put(name, key)
    try:
        yield
    except BaseException:
        if key and before is not None:
            vault.put(name, before)
        elif key:
            vault.remove(name)
        raise


def _link_text(text: str) -> str:
    """Return the link, which is asked for where it should not be in the shell's history."""
    if text != "-":
        return text
    if sys.stdin.isatty():
        return getpass.getpass("Pairing link (it is not shown): ")
    return sys.stdin.readline()


def _key(
    options: argparse.Namespace, environ: Mapping[str, str], server: ServerAddress, vault: Vault
) -> tuple[str, bool]:
    """Return the API key for a server, and whether it is to be kept.

    Raises:
        NoHomeError: There is none, and nobody to ask.
        StorageError: What was given is none.
    """
    if options.key_file is not None:
        return _key_of_file(options.key_file), True
    if given := environ.get(f"{PREFIX}KEY"):
        return checked_key(given), False
    if kept := vault.get(key_name(server.url)):
        return kept, False
    if not sys.stdin.isatty():
        raise NoHomeError("expected an API key for the server: --key-file FILE, or C2L_CONNECT_KEY")
    return checked_key(getpass.getpass(f"API key for {server.url} (made in the web app; it is not shown): ")), True


def _key_of_file(path: Path) -> str:
    if str(path) == "-":
        return checked_key(sys.stdin.readline())
    try:
        return checked_key(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        raise StorageError(f"expected an API key in {path}") from None


def _vault(data_dir: Path, *, use_keyring: bool) -> Vault:
    return open_vault(keys_folder(data_dir), use_keyring=use_keyring)[0]


# --- settings, checks ---


def _settings(options: argparse.Namespace, environ: Mapping[str, str]) -> ConnectSettings:
    changes: dict[str, str] = {"DATA_DIR": str(options.data_dir.absolute())}
    if options.server:
        changes["SERVER"] = options.server
    if options.port is not None:
        changes["PORT"] = str(options.port)
    if options.key_file is not None and options.pair is None:
        changes["KEY"] = _key_of_file(options.key_file)
    if options.host:
        changes["HOSTS"] = ",".join(options.host)
    if options.origin:
        changes["ORIGINS"] = ",".join(options.origin)
    if options.no_keyring:
        changes["KEYRING"] = "false"
    if options.json:
        changes["JSON_READY"] = "true"
    return load(ConnectSettings, PREFIX, {**environ, **{PREFIX + name: value for name, value in changes.items()}})


def _keyring_wanted(options: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    if options.no_keyring:
        return False
    return environ.get(f"{PREFIX}KEYRING", "true").lower() not in ("0", "false", "no", "off")


def _warn_of_files(settings: ConnectSettings) -> None:
    sentence = open_vault(keys_folder(settings.data_dir), use_keyring=settings.keyring)[1]
    if sentence and settings.keyring:
        sys.stderr.write(sentence + "\n")


def _check(settings: ConnectSettings) -> int:
    async def run() -> int:
        connect = Connect(settings)
        try:
            findings = await check(connect.build())
        finally:
            await connect.close()
        for finding in findings:
            print(f"{'ok ' if finding.good else 'NOT'}  {finding.name:24} {finding.detail}")
        return 0 if all(finding.good for finding in findings) else 1

    return asyncio.run(run())


async def _ask_status(port: int) -> dict[str, list[dict[str, object]]]:
    pool = Pool(f"127.0.0.1:{port}")
    try:
        response = await fetch(pool, "GET", STATUS_PATH, ((b"host", b"localhost"),), timeout=STATUS_TIMEOUT)
    finally:
        await pool.close()
    document = json.loads(response.body)
    if response.status != 200 or not isinstance(document, dict) or not isinstance(document.get("homes"), list):
        raise ValueError("expected the state of a local endpoint")
    return document


def _fail(reason: object, status: int = 1) -> int:
    sys.stderr.write(f"cloudtolocalllm connect: {reason}\n")
    return status
