"""`cloudtolocalllm bridge`: this machine's engines for a server somewhere."""

import argparse
import asyncio
import platform
import sys
from pathlib import Path
from urllib.parse import urlsplit

from cloudtolocalllm.bridge.pairing import PairingError, pair
from cloudtolocalllm.cli.services import run_service
from cloudtolocalllm.runtime.settings import environment


def run_bridge(options: argparse.Namespace) -> int:
    """Pair at the first start, then run the bridge until it is told to stop."""
    overrides: dict[str, str] = {}
    if options.server:
        overrides["C2L_BRIDGE_SERVER"] = options.server
        credential = options.data_dir / f"{_host_name(options.server)}.json"
        overrides["C2L_BRIDGE_CREDENTIAL_FILE"] = str(credential)
        if not credential.exists():
            status = _pair(options, credential)
            if status:
                return status
    elif "C2L_BRIDGE_SERVER" not in environment():
        sys.stderr.write("cloudtolocalllm bridge: expected --server URL (or C2L_BRIDGE_SERVER)\n")
        return 2
    if options.engine:
        overrides["C2L_BRIDGE_ENGINES"] = ",".join(options.engine)
    if options.name:
        overrides["C2L_BRIDGE_NAME"] = options.name
    if options.allow:
        overrides["C2L_BRIDGE_ALLOW"] = ",".join(options.allow)
    try:
        return run_service("bridge", overrides)
    except PairingError as error:
        sys.stderr.write(f"cloudtolocalllm bridge: {error}\n")
        return 1


def _pair(options: argparse.Namespace, credential: Path) -> int:
    key = sys.stdin.readline().strip() if options.key == "-" else options.key
    if not key:
        sys.stderr.write(
            "cloudtolocalllm bridge: this machine is not paired with the server; give an API key made there: "
            "--key KEY, or --key - to read it from stdin\n"
        )
        return 2
    try:
        asyncio.run(pair(options.server, key, options.name or platform.node()[:64] or "bridge")).save(credential)
    except PairingError as error:
        sys.stderr.write(f"cloudtolocalllm bridge: {error}\n")
        return 1
    return 0


def _host_name(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}-{parts.port or (443 if parts.scheme == 'https' else 80)}"
