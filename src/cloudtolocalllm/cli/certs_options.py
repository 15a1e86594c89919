"""Options of `certs`; what it does is imported only when it runs."""

import argparse
from pathlib import Path

_Commands = argparse._SubParsersAction  # argparse gives the type no public name


def add_certs(commands: "_Commands[argparse.ArgumentParser]") -> None:
    """Add the command and its actions."""
    certs = commands.add_parser("certs", help="the platform's TLS certificate").add_subparsers(
        required=True, metavar="ACTION"
    )
    run = certs.add_parser("run", help="get, check, deploy and renew it, set by its environment variables")
    run.set_defaults(run=_action("certs_run"))
    status = certs.add_parser("status", help="tell how it stands; exit status 1 when it needs somebody")
    shown = status.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print JSON")
    shown.add_argument("--metrics", action="store_true", help="print metrics in Prometheus' text format")
    status.set_defaults(run=_action("certs_status"))
    retry = certs.add_parser("retry", help="do not wait for the end of the pause after a failure; the limits hold")
    retry.set_defaults(run=_action("certs_retry"))
    check = certs.add_parser("check", help="tell whether a certificate and key could be deployed")
    check.add_argument("certificate", type=Path, help="the certificate with its chain, in PEM")
    check.add_argument("key", type=Path, help="its private key, in PEM")
    check.set_defaults(run=_action("certs_check"))


def _action(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import certs

        status: int = getattr(certs, name)(options)
        return status

    return run
