"""`cloudtolocalllm bridge`: this machine's engines for a server somewhere."""

import argparse
import asyncio
import io
import json
import platform
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cloudtolocalllm.bridge.control import RevokedError
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError, Prover
from cloudtolocalllm.bridge.login import Invitation, Login
from cloudtolocalllm.bridge.pairing import pair, unpair
from cloudtolocalllm.cli.services import run_service
from cloudtolocalllm.runtime.settings import environment

PAGE_PORT = 8790
"""Of the page, where nobody says otherwise."""
REVOKED_STATUS = 3
"""Exit status of a bridge that the server does not want any more."""


def run_bridge(options: argparse.Namespace) -> int:
    """Run the bridge until it is told to stop; pair it before, if it is not yet paired."""
    overrides: dict[str, str] = {}
    environ = environment()
    try:
        server = options.server or environ.get("C2L_BRIDGE_SERVER") or _only_server(options.data_dir)
        path = _credential(options, environ, server)
        if not _is_paired(path):
            paired = _pair_first(options, environ, server, path)
            if paired is not None:
                return paired
        overrides |= {"C2L_BRIDGE_SERVER": server, "C2L_BRIDGE_CREDENTIAL_FILE": str(path)}
        if options.engine:
            overrides["C2L_BRIDGE_ENGINES"] = ",".join(options.engine)
        if options.name:
            overrides["C2L_BRIDGE_NAME"] = options.name
        if options.allow:
            overrides["C2L_BRIDGE_ALLOW"] = ",".join(options.allow)
        if options.page_port is not None or options.no_page:
            overrides["C2L_BRIDGE_PAGE_PORT"] = "" if options.no_page else str(options.page_port)
        elif "C2L_BRIDGE_PAGE_PORT" not in environ:
            overrides["C2L_BRIDGE_PAGE_PORT"] = str(PAGE_PORT)
        return run_service("bridge", overrides)
    except PairingError as error:
        return _fail(error)
    except RevokedError as error:
        return _fail(error, REVOKED_STATUS)


def login(options: argparse.Namespace) -> int:
    """Pair this machine with a server, with a person's help."""
    try:
        path = options.data_dir / _file_name(options.server)
        _log_in(options, environment(), options.server, path)
    except PairingError as error:
        return _fail(error)
    print(f"Start it: cloudtolocalllm bridge run --server {options.server}")
    return 0


def logout(options: argparse.Namespace) -> int:
    """Give the credential back and forget it."""
    try:
        server = options.server or _only_server(options.data_dir)
        path = options.data_dir / _file_name(server)
        if not path.exists():
            return _fail(f"expected a credential in {path}; this machine is not paired with that server")
        told = _give_back(server, path)
    except PairingError as error:
        return _fail(error)
    path.unlink()
    if not told:
        sys.stderr.write(
            "cloudtolocalllm bridge: the credential was deleted here, but the server could not be told; "
            "remove this machine in the web app too\n"
        )
        return 1
    print("This machine is not paired any more.")
    return 0


# --- pairing ---


def _pair_first(options: argparse.Namespace, environ: Mapping[str, str], server: str, path: Path) -> int | None:
    """Pair a machine that is not; return an exit status when that ends the command."""
    key = sys.stdin.readline().strip() if options.key == "-" else options.key or environ.get("C2L_BRIDGE_PAIRING_KEY")
    if key:
        asyncio.run(pair(server, key, _name(options))).save(path)
        return None
    if sys.stdin.isatty() and sys.stdout.isatty():
        _log_in(options, environ, server, path)
        return None
    sys.stderr.write(
        "cloudtolocalllm bridge: this machine is not paired with the server; run: "
        f"cloudtolocalllm bridge login --server {server}\n"
        "Where nobody can confirm it, give an API key: --key - (from stdin) or C2L_BRIDGE_PAIRING_KEY\n"
    )
    return 2


def _log_in(options: argparse.Namespace, environ: Mapping[str, str], server: str, path: Path) -> None:
    attempt = Login(server, _name(options))
    if not options.no_browser and has_display(environ, sys.platform):
        identity = asyncio.run(attempt.by_browser(_open))
    else:
        identity = asyncio.run(attempt.by_code(_show))
    if path.exists():
        try:
            _give_back(server, path)  # so that the account does not list this machine twice
        except PairingError as error:
            sys.stderr.write(f"cloudtolocalllm bridge: the earlier pairing was not removed: {error}\n")
    identity.save(path)
    print(f"This machine is paired (bridge {identity.bridge_id}).")


def _give_back(server: str, path: Path) -> bool:
    """Have the server revoke what a file holds; return whether it is void there."""
    try:
        identity = BridgeIdentity.load(path)
    except PairingError:
        return True  # revoked already, or nothing that could be given back
    return asyncio.run(unpair(server, Prover(server, lambda: identity)))


def has_display(environ: Mapping[str, str], system: str) -> bool:
    """Tell whether a browser that is opened here is seen by whoever sits at the terminal."""
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return False
    if system in ("darwin", "win32", "cygwin"):
        return True
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def _open(url: str) -> None:
    print(f"Confirm the pairing in the browser. If it does not open, open this page on this machine:\n\n  {url}\n")
    print("No browser here? Stop with Ctrl-C and use --no-browser.", flush=True)
    webbrowser.open(url)


def _show(invitation: Invitation) -> None:
    print(f"""
Open  {invitation.url}
and enter the code  {invitation.code}

or scan this:

{qr_code(invitation.complete_url)}
The code holds for {invitation.seconds / 60:.0f} minutes. Confirm it only if you started this pairing yourself.
""", flush=True)  # fmt: skip


def qr_code(text: str) -> str:
    """Return a QR code to print in a terminal."""
    import segno  # only a pairing needs it, and the bridge runs all day

    out = io.StringIO()
    segno.make(text, error="l").terminal(out, compact=True, border=2)
    return out.getvalue()


# --- which server, which file ---


def _name(options: argparse.Namespace) -> str:
    return (options.name or platform.node() or "bridge")[:64]


def _credential(options: argparse.Namespace, environ: Mapping[str, str], server: str) -> Path:
    if not options.server and (given := environ.get("C2L_BRIDGE_CREDENTIAL_FILE")):
        return Path(given)
    path: Path = options.data_dir / _file_name(server)
    return path


def _is_paired(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        BridgeIdentity.load(path)
    except PairingError:
        return False
    return True


def _only_server(data_dir: Path) -> str:
    """Return the one server that this machine is paired with.

    Raises:
        PairingError: There is none, or more than one.
    """
    servers = []
    for path in sorted(data_dir.glob("*.json")):
        try:
            servers.append(str(json.loads(path.read_text())["server"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if len(servers) != 1:
        state = "with none" if not servers else "with several"
        raise PairingError(f"expected --server URL (or C2L_BRIDGE_SERVER), for this machine is paired {state}")
    return servers[0]


def _file_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if not port or parts.scheme not in ("http", "https") or not parts.hostname:
        raise PairingError("expected the server's URL, such as https://example.org")
    return f"{parts.hostname.replace(':', '_')}-{port}.json"  # a colon is no part of a file's name everywhere


def _fail(reason: object, status: int = 1) -> int:
    sys.stderr.write(f"cloudtolocalllm bridge: {reason}\n")
    return status
