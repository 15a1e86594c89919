"""Options of `nginx` and `ports`; what they do is imported only when they run."""

import argparse
from pathlib import Path

_Commands = argparse._SubParsersAction  # argparse gives the type no public name


def add_nginx(commands: "_Commands[argparse.ArgumentParser]") -> None:
    """Add the commands and their actions."""
    nginx = commands.add_parser("nginx", help="nginx in place of the embedded edge").add_subparsers(
        required=True, metavar="ACTION"
    )
    render = nginx.add_parser("render", help="write its configuration, set by the environment variables")
    render.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    render.set_defaults(run=_action("nginx_render"))
    run = nginx.add_parser("run", help="run it, and have it read a new certificate when one comes")
    run.set_defaults(run=_action("nginx_run"))
    ports = commands.add_parser("ports", help="hold ports, and hand them to each nginx that asks")
    ports.add_argument("socket", type=Path, metavar="SOCKET", help="Unix socket to hand them out at")
    ports.add_argument("addresses", nargs="+", metavar="HOST:PORT", help="what to listen at, such as 0.0.0.0:443")
    ports.set_defaults(run=_ports)


def _ports(options: argparse.Namespace) -> int:
    from cloudtolocalllm.cli.ports import ports

    return ports(options)


def _action(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import nginx

        status: int = getattr(nginx, name)(options)
        return status

    return run
