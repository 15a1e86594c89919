"""The options of `cloudtolocalllm connect`; what it does is imported only when it runs."""

import argparse
from pathlib import Path

from cloudtolocalllm.cli.layout import default_data_dir
from cloudtolocalllm.runtime.settings import environment

_LINK_HELP = (
    "the pairing link made at home, or what follows its #; without it, or as -, it is asked for or read from stdin"
)


def add_connect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # it has no public name
    """Add the command and its actions; without an action it runs."""
    connect = commands.add_parser(
        "connect",
        help="have your homes' models at http://localhost:11434, sealed end to end",
        description="Without an action: serve http://localhost:11434 and /v1 as the engine at home does.",
    )
    connect.add_argument("--server", metavar="URL", help="the server whose homes are used (all)")
    connect.add_argument("--port", type=int, help="the port on 127.0.0.1; 0 for any free one (11434)")
    connect.add_argument("--pair", nargs="?", const="-", metavar="LINK", help=f"pair with a home first: {_LINK_HELP}")
    connect.add_argument("--check", action="store_true", help="ask every home once, tell how it is, and end")
    connect.add_argument("--host", action="append", default=[], metavar="NAME",
                         help="a name besides localhost under which programs may ask; may be repeated")  # fmt: skip
    connect.add_argument("--origin", action="append", default=[], metavar="ORIGIN",
                         help="web pages that may ask, such as http://localhost:3000; may be repeated")  # fmt: skip
    connect.add_argument("--json", action="store_true", help="print one line of JSON on stdout when ready")
    _add_common(connect)
    _add_pairing(connect)
    connect.set_defaults(run=_action("run_connect"))
    actions = connect.add_subparsers(metavar="ACTION")
    add = actions.add_parser("add", help="pair this computer with a home")
    add.add_argument("link", nargs="?", metavar="LINK", help=_LINK_HELP)
    add.add_argument("--server", metavar="URL",
                     help="the server, where LINK does not say it; without LINK, words are compared")  # fmt: skip
    add.add_argument("--bridge", metavar="ID", help="without LINK: the machine, of several in the account")
    add.add_argument("--wait", type=float, default=10.0, metavar="MINUTES",
                     help="without LINK: how long both sides are waited for (%(default)g)")  # fmt: skip
    _add_common(add)
    _add_pairing(add)
    add.set_defaults(run=_action("connect_add"))
    listing = actions.add_parser("list", help="list the homes")
    _add_common(listing)
    listing.set_defaults(run=_action("connect_list"))
    change = actions.add_parser("set", help="rename a home, give it another priority, or its server another API key")
    change.add_argument("home", metavar="HOME", help="its name, its bridge's id, or its number in the list")
    change.add_argument("--name", help="how it is called here")
    change.add_argument("--priority", type=int, metavar="N", help="the lowest is preferred (0)")
    _add_key_file(change)
    _add_common(change)
    change.set_defaults(run=_action("connect_set"))
    remove = actions.add_parser("remove", help="forget a home and this computer's key for it")
    remove.add_argument("home", metavar="HOME", help="its name, its bridge's id, or its number in the list")
    _add_common(remove)
    remove.set_defaults(run=_action("connect_remove"))
    status = actions.add_parser("status", help="ask the endpoint that runs how its homes are")
    status.add_argument("--port", type=int, default=11434, help="where it listens (%(default)s)")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_action("connect_status"))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-keyring", action="store_true", help="keep keys in files, not in the system's keychain")
    parser.add_argument("--data-dir", type=Path, default=default_data_dir(environment()) / "connect",
                        help="where the homes are kept (%(default)s)")  # fmt: skip


def _add_pairing(parser: argparse.ArgumentParser) -> None:
    _add_key_file(parser)
    parser.add_argument("--name", help="how the home lists this computer (the host's name)")
    parser.add_argument("--home-name", metavar="NAME", help="how the home is called here (its bridge's id)")
    parser.add_argument("--priority", type=int, default=0, metavar="N", help="the lowest is preferred (%(default)s)")


def _add_key_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key-file", type=Path, metavar="FILE",
                        help="a file with the API key for the server; - for stdin")  # fmt: skip


def _action(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import connect

        status: int = getattr(connect, name)(options)
        return status

    return run
