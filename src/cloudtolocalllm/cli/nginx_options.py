"""Options of `nginx`; what it does is imported only when it runs."""

import argparse
from pathlib import Path

_Commands = argparse._SubParsersAction  # argparse gives the type no public name


def add_nginx(commands: "_Commands[argparse.ArgumentParser]") -> None:
    """Add the command and its actions."""
    nginx = commands.add_parser("nginx", help="nginx in place of the embedded edge").add_subparsers(
        required=True, metavar="ACTION"
    )
    render = nginx.add_parser("render", help="write its configuration, set by the environment variables")
    render.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    render.set_defaults(run=_action("nginx_render"))
    run = nginx.add_parser("run", help="run it, and have it read a new certificate when one comes")
    run.set_defaults(run=_action("nginx_run"))


def _action(name: str) -> object:
    def run(options: argparse.Namespace) -> int:
        from cloudtolocalllm.cli import nginx

        status: int = getattr(nginx, name)(options)
        return status

    return run
