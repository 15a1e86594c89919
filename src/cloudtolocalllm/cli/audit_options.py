"""Options of `audit` and `services`; what they do is imported only when they run."""

import argparse
from pathlib import Path

_Commands = argparse._SubParsersAction  # argparse gives the type no public name


def add_audit(commands: "_Commands[argparse.ArgumentParser]", data_dir: argparse.ArgumentParser) -> None:
    """Add both commands.

    Args:
        commands: Where to.
        data_dir: The parent with the option `--data-dir`.
    """
    where = argparse.ArgumentParser(add_help=False, parents=[data_dir])
    where.add_argument(
        "--log", type=Path, metavar="DIR", help="a log's folder, or one of several, instead of DATA-DIR/audit"
    )
    audit = commands.add_parser("audit", help="the audit log").add_subparsers(required=True, metavar="ACTION")
    verify = audit.add_parser("verify", parents=[where], help="find any change of the log; exit status 1 if there is")
    verify.add_argument("--checkpoint", action="append", default=[], metavar="FILE",
                        help="compare with checkpoints kept elsewhere: a note, or what a sink wrote")  # fmt: skip
    verify.add_argument("--key", metavar="PUBKEY", help="the log's public key, as kept elsewhere (log.vkey)")
    verify.set_defaults(run=_verify)
    show = audit.add_parser("show", parents=[where], help="print the events")
    show.add_argument("--since", metavar="WHEN", help='a period such as "2h" or "7d", or a date such as 2026-01-31')
    show.add_argument("--json", action="store_true", help="print the records as they are")
    show.set_defaults(run=_show)
    services = commands.add_parser("services", help="the services' own keys").add_subparsers(
        required=True, metavar="ACTION"
    )
    rotate = services.add_parser("rotate", parents=[data_dir], help="give a service a new key pair, while it runs")
    rotate.add_argument("name", help="the service: api")
    rotate.add_argument(
        "--keys", type=Path, metavar="DIR", help="the folder of its keys, if not in the data directory"
    )
    rotate.set_defaults(run=_rotate)


def _verify(options: argparse.Namespace) -> int:
    from cloudtolocalllm.cli.audit import audit_verify

    return audit_verify(options)


def _show(options: argparse.Namespace) -> int:
    from cloudtolocalllm.cli.audit import audit_show

    return audit_show(options)


def _rotate(options: argparse.Namespace) -> int:
    from cloudtolocalllm.cli.service_keys import services_rotate

    return services_rotate(options)
