"""Reads the command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cloudtolocalllm import __version__
from cloudtolocalllm.cli.audit_options import add_audit
from cloudtolocalllm.cli.bridge_options import add_bridge
from cloudtolocalllm.cli.certs_options import add_certs
from cloudtolocalllm.cli.connect_options import add_connect
from cloudtolocalllm.cli.home_options import add_home
from cloudtolocalllm.cli.layout import default_data_dir
from cloudtolocalllm.cli.nginx_options import add_nginx
from cloudtolocalllm.cli.rollout_options import add_rollout
from cloudtolocalllm.runtime.settings import environment

DESCRIPTION = "Use the language models on your own machines from anywhere."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: None for the process's own.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cloudtolocalllm", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"cloudtolocalllm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data_dir = argparse.ArgumentParser(add_help=False)
    data_dir.add_argument(
        "--data-dir",
        type=Path,
        default=default_data_dir(environment()),
        help="where everything is kept (%(default)s)",
    )
    _add_up(commands, data_dir)
    add_bridge(commands)
    add_connect(commands)
    _add_owner_commands(commands, data_dir)
    add_home(commands)
    add_audit(commands, data_dir)
    add_certs(commands)
    add_nginx(commands)
    add_rollout(commands)
    _add_services(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse gives the type no public name


def _add_up(commands: "_Commands[argparse.ArgumentParser]", data_dir: argparse.ArgumentParser) -> None:
    up = commands.add_parser("up", parents=[data_dir], help="start everything on this machine")
    up.add_argument("--port", type=int, help="port of the page and the APIs; 0 for any free one (8080)")
    up.add_argument("--engine", action="append", default=[], metavar="URL", help="a model engine; may be repeated")
    demo = up.add_mutually_exclusive_group()
    demo.add_argument("--demo", action="store_true", help="use the scripted demo engine")
    demo.add_argument("--no-demo", action="store_true", help="refuse to start when no engine is found")
    up.add_argument("--no-browser", action="store_true", help="do not open the page")
    up.add_argument("--json", action="store_true", help="print one line of JSON on stdout when ready")
    up.add_argument("--warm", type=int, default=1, help="proxies kept ready for a first request (%(default)s)")
    up.set_defaults(run=_up)


def _add_owner_commands(commands: "_Commands[argparse.ArgumentParser]", data_dir: argparse.ArgumentParser) -> None:
    keys = commands.add_parser("keys", help="API keys").add_subparsers(required=True, metavar="ACTION")
    _add_key_creation(
        keys.add_parser("create", parents=[data_dir], help="make a key and print it; it is shown only now")
    )
    keys.add_parser("list", parents=[data_dir], help="list the keys").set_defaults(run=_keys("keys_list"))
    revoke = keys.add_parser("revoke", aliases=["delete"], parents=[data_dir],
                             help="revoke a key; it stops working at once")  # fmt: skip
    revoke.add_argument("id", help="the key's id, as `keys list` shows it")
    revoke.set_defaults(run=_keys("keys_revoke"))
    link = commands.add_parser("sign-in-link", parents=[data_dir], help="print a link that signs in once")
    link.set_defaults(run=_owner("sign_in_link"))
    status = commands.add_parser("status", parents=[data_dir], help="tell the state of every part")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_status)


def _add_key_creation(create: argparse.ArgumentParser) -> None:
    create.add_argument("name", nargs="?", help="what it is for")
    create.add_argument("--name", dest="label", help="the same")
    create.add_argument("--days", type=_days, default=90, help="until it expires, 1 to 366 (%(default)s)")
    create.add_argument("--route", action="append", default=[], metavar="PATH",
                        help="limit it to a route, or with / at the end to all below; may be repeated")  # fmt: skip
    create.add_argument("--model", action="append", default=[], metavar="PATTERN",
                        help="limit it to models, such as 'llama3.2:*'; may be repeated")  # fmt: skip
    create.add_argument("--rpm", type=int, metavar="N", help="requests a minute")
    create.add_argument("--tokens-per-day", type=int, metavar="N", help="tokens a day (UTC)")
    create.add_argument("--bridge", metavar="ID", help="limit it to one machine")
    create.set_defaults(run=_keys("keys_create"))


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 366:
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 366")
    return int(text)


def _add_services(commands: "_Commands[argparse.ArgumentParser]") -> None:
    from cloudtolocalllm.cli.services import SERVICES

    for name in SERVICES:
        if name not in ("bridge", "certs", "connect", "nginx"):
            service = commands.add_parser(name, help=f"run the service {name}, set by its environment variables")
            service.set_defaults(run=_service(name))
    forkserver = commands.add_parser("proxy-forkserver", help="fork proxies for the manager")
    forkserver.set_defaults(run=_forkserver)


def _up(options: argparse.Namespace) -> int:
    import asyncio

    from cloudtolocalllm.cli.lock import AlreadyRunningError
    from cloudtolocalllm.cli.up import UpError, UpOptions, up
    from cloudtolocalllm.runtime.site import web_root

    try:
        return asyncio.run(
            up(
                UpOptions(
                    data_dir=options.data_dir,
                    port=options.port,
                    engines=tuple(url.rstrip("/") for url in options.engine),
                    demo=options.demo,
                    no_demo=options.no_demo,
                    no_browser=options.no_browser,
                    as_json=options.json,
                    warm=options.warm,
                    web_root=web_root(),
                )
            )
        )
    except (UpError, AlreadyRunningError, PermissionError) as error:
        return _fail(str(error))


def _owner(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import owner

        status: int = getattr(owner, name)(options)
        return status

    return run


def _keys(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import keys

        status: int = getattr(keys, name)(options)
        return status

    return run


def _status(options: argparse.Namespace) -> int:
    from cloudtolocalllm.cli.status import status

    return status(options.data_dir, as_json=options.json)


def _service(name: str) -> object:
    def run(_: argparse.Namespace) -> int:
        from cloudtolocalllm.cli.services import run_service

        return run_service(name)

    return run


def _forkserver(_: argparse.Namespace) -> int:
    from cloudtolocalllm.cli.forkserver import main as forkserver

    status: int = forkserver() or 0
    return status


def _fail(text: str) -> int:
    sys.stderr.write(f"cloudtolocalllm: {text}\n")
    return 1
