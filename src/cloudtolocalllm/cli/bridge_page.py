"""`cloudtolocalllm bridge page`: the page that this machine's bridge serves itself."""

import argparse
import sys
import webbrowser

from cloudtolocalllm.bridge.identity import PairingError
from cloudtolocalllm.bridge.page.link import address_path, read_address
from cloudtolocalllm.bridge.page.server import redirecting
from cloudtolocalllm.bridge.page.sessions import LINK_LIFE
from cloudtolocalllm.bridge.store import lock
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.cli.bridge import has_display
from cloudtolocalllm.cli.bridge_devices import home_of
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.settings import environment


def open_page(options: argparse.Namespace) -> int:
    """Print a link that signs a browser of this machine in, once, and open it."""
    try:
        home = home_of(options)
        # Else whoever listens on that port now is not ours.
        if not lock.is_held(home.store):
            return _fail("the bridge does not run; start it: cloudtolocalllm bridge run")
        path = address_path(home.credential)
        address = read_address(path)
    except (PairingError, StoreError) as error:
        return _fail(error)
    if address is None:
        return _fail(
            'the bridge serves no page; its log says why ("the page of this machine is not served"). It is off '
            "with --no-page, and unless `cloudtolocalllm bridge run` started the bridge, where C2L_BRIDGE_PAGE_PORT "
            "is unset"
        )
    link = address.link(SystemClock().wall())
    print(f"Open this in a browser on this machine; it works once, within {LINK_LIFE // 60} minutes:\n\n  {link}\n",
          flush=True)  # fmt: skip
    if not options.no_browser and has_display(environment(), sys.platform):
        leading = path.with_suffix(".page.html")
        try:
            files.replace(leading, redirecting(link).encode())
        except OSError as error:
            return _fail(f"expected to write {leading}, got {type(error).__name__}")
        webbrowser.open(leading.absolute().as_uri())
    return 0


def _fail(reason: object) -> int:
    sys.stderr.write(f"cloudtolocalllm bridge: {reason}\n")
    return 1
