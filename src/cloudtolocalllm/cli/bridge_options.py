"""The options of `cloudtolocalllm bridge`."""

import argparse
import importlib
from pathlib import Path

from cloudtolocalllm.cli.key_options import key_place
from cloudtolocalllm.cli.layout import default_data_dir
from cloudtolocalllm.runtime.settings import environment


def add_bridge(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # it has no public name
    """Add the command and its actions; without an action it runs."""
    bridge = commands.add_parser(
        "bridge",
        help="connect this machine's engines to a server",
        description="Without an action: as `run`.",
    )
    _add_run(bridge)
    actions = bridge.add_subparsers(metavar="ACTION")
    _add_run(actions.add_parser("run", help="connect to the server and stay"))
    _add_login(actions.add_parser("login", help="pair this machine with a server"))
    logout = actions.add_parser("logout", help="end the pairing, here and at the server")
    logout.add_argument("--server", metavar="URL", help="which one (the only one)")
    _add_data_dir(logout)
    logout.set_defaults(run=_action("logout"))
    _add_page(actions.add_parser("page", help="open the page that this machine serves itself"))
    _add_pair_device(actions.add_parser("pair-device", help="print a link and QR code that pair one device"))
    _add_devices(actions.add_parser("devices", help="list the devices that may use this home, or change one"))
    _add_new_identity(
        actions.add_parser("new-identity", help="make this home a stranger to every device, which are paired anew")
    )
    _add_encryption(actions)


def _add_encryption(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # as above
    for name, what in {
        "encrypt-store": "encrypt the home store",
        "decrypt-store": "have the home store in the clear",
        "change-store-key": "give the home store another key",
    }.items():
        parser = actions.add_parser(name, help=f"{what}; stop the bridge first")
        if name != "decrypt-store":
            parser.add_argument("--key", type=key_place, required=True, metavar="PLACE",
                                help="where it is to lie: keyring, or file:PATH; made if there is none")  # fmt: skip
        _add_home(parser)
        parser.set_defaults(run=_action(name.replace("-", "_"), "bridge_store"))


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", help="the server to dial (the one it is paired with)")
    parser.add_argument(
        "--key", metavar="API_KEY", help="pairs this machine where nobody can confirm it; - reads it from stdin"
    )
    _add_pairing(parser)
    parser.add_argument(
        "--engine", action="append", default=[], metavar="URL", help="a model engine; may be repeated"
    )
    parser.add_argument("--allow", action="append", default=[], choices=["pull", "delete", "copy"],
                        help="serve a route that changes the engine's models")  # fmt: skip
    page = parser.add_mutually_exclusive_group()
    page.add_argument("--page-port", type=int, choices=range(65536), metavar="PORT",
                      help="where browsers of this machine find its page (8790)")  # fmt: skip
    page.add_argument("--no-page", action="store_true", help="serve no page")
    _add_data_dir(parser)
    parser.set_defaults(run=_action("run_bridge"))


def _add_login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", required=True, help="the server to pair with")
    _add_pairing(parser)
    _add_data_dir(parser)
    parser.set_defaults(run=_action("login"))


def _add_page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-browser", action="store_true", help="only print the link")
    _add_home(parser)
    parser.set_defaults(run=_action("open_page", "bridge_page"))


def _add_pair_device(parser: argparse.ArgumentParser) -> None:
    _add_home(parser)
    parser.set_defaults(run=_action("pair_device", "bridge_devices"))


def _add_devices(parser: argparse.ArgumentParser) -> None:
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--remove", metavar="ID", help="put it out at once and for good")
    change.add_argument("--rename", nargs=2, metavar=("ID", "NAME"), help="call it something else")
    change.add_argument("--approve", metavar="ID", help="let one in that waits; compare the words first")
    _add_home(parser)
    parser.set_defaults(run=_action("list_devices", "bridge_devices"))


def _add_new_identity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")
    _add_home(parser)
    parser.set_defaults(run=_action("new_identity", "bridge_devices"))


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", help="whose bridge, where there are several")
    _add_data_dir(parser)


def _add_pairing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="how people see this machine (the host's name)")
    parser.add_argument(
        "--no-browser", action="store_true", help="show a code to confirm elsewhere, open no browser here"
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=default_data_dir(environment()) / "bridge",
                        help="where the credential is kept (%(default)s)")  # fmt: skip


def _action(name: str, module: str = "bridge") -> object:
    def run(options: argparse.Namespace) -> int:
        status: int = getattr(importlib.import_module(f"cloudtolocalllm.cli.{module}"), name)(options)
        return status

    return run
