"""`cloudtolocalllm services`: the key pairs with which the services call each other."""

import argparse
import sys

from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.auth.services import GRACE, LIFETIME, ServiceKeys, ServiceKeysError
from cloudtolocalllm.cli.audit import note
from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.runtime.clock import SystemClock


def services_rotate(options: argparse.Namespace) -> int:
    """Give a service a new key pair; it goes on without a restart."""
    layout = Layout(options.data_dir.absolute())
    folder = options.keys or layout.service_keys
    if not (folder / f"{options.name}.json").exists():
        return _fail(f"expected the keys of a service in {folder}, got none of {options.name}")
    try:
        kid = ServiceKeys(folder, options.name, SystemClock()).rotate()
    except (ServiceKeysError, OSError) as error:
        return _fail(str(error))
    note(layout.audit, Event.SERVICE_KEYS_ROTATED, about=options.name)
    print(f"{options.name} signs with the new key {kid} in {GRACE:.0f} s; the old one ends {LIFETIME:.0f} s later.")
    return 0


def _fail(text: str) -> int:
    sys.stderr.write(f"cloudtolocalllm services: {text}\n")
    return 1
