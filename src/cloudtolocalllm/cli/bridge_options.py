"""The options of `cloudtolocalllm bridge`."""

import argparse
from pathlib import Path

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
    _add_data_dir(parser)
    parser.set_defaults(run=_action("run_bridge"))


def _add_login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", required=True, help="the server to pair with")
    _add_pairing(parser)
    _add_data_dir(parser)
    parser.set_defaults(run=_action("login"))


def _add_pairing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="how people see this machine (the host's name)")
    parser.add_argument(
        "--no-browser", action="store_true", help="show a code to confirm elsewhere, open no browser here"
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=default_data_dir(environment()) / "bridge",
                        help="where the credential is kept (%(default)s)")  # fmt: skip


def _action(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import bridge

        status: int = getattr(bridge, name)(options)
        return status

    return run
