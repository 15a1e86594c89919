"""Options of `home`; what it does is imported only when it runs."""

import argparse
from pathlib import Path

from cloudtolocalllm.cli.key_options import key_place
from cloudtolocalllm.cli.layout import default_data_dir
from cloudtolocalllm.runtime.settings import environment


def add_home(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # it has no public name
    """Add the command and its actions."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--data-dir", type=Path, default=default_data_dir(environment()) / "bridge",
                       help="where the bridge keeps its credential and the store (%(default)s)")  # fmt: skip
    home = commands.add_parser("home", help="the home store: chats, devices and keys")
    actions = home.add_subparsers(required=True, metavar="ACTION")
    backup = actions.add_parser(
        "backup", parents=[where], help="copy the store into one file, also while it is in use"
    )
    backup.add_argument("file", nargs="?", type=Path, metavar="FILE",
                        help="the new file (one in the folder `backups` beside the store)")  # fmt: skip
    backup.set_defaults(run=_action("home_backup"))
    restore = actions.add_parser(
        "restore", parents=[where], help="put a back-up in the store's place; stop the bridge first"
    )
    restore.add_argument("--key", type=key_place, metavar="PLACE",
                         help="where the back-up's key lies: file:PATH or keyring:ENTRY (the store's)")  # fmt: skip
    restore.add_argument("file", type=Path, metavar="FILE", help="the back-up")
    restore.set_defaults(run=_action("home_restore"))


def _action(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import home

        status: int = getattr(home, name)(options)
        return status

    return run
