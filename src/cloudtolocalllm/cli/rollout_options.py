"""Options of `rollout`; what it does is imported only when it runs."""

import argparse
from pathlib import Path

_Commands = argparse._SubParsersAction  # argparse gives the type no public name


def add_rollout(commands: "_Commands[argparse.ArgumentParser]") -> None:
    """Add the command."""
    rollout = commands.add_parser("rollout", help="replace a service of a Compose platform with nothing cut")
    rollout.add_argument("service", help="api-backend, nginx-proxy and so on; streaming-proxy; or all")
    rollout.add_argument("--project-dir", type=Path, help="folder of docker-compose.yml (deploy/compose)")
    rollout.add_argument("--force", action="store_true", help="replace it though nothing changed or it is ill")
    rollout.add_argument("--wait", action="store_true", help="stay until what drains in the background has ended")
    rollout.add_argument("--at-a-time", type=_count, metavar="N", help="start N at once at most, to save memory")
    rollout.add_argument("--start-timeout", type=_count, metavar="S", help="seconds to get healthy (120)")
    rollout.add_argument("--drain", type=_count, metavar="S", help="seconds that an old one may take to end")
    rollout.add_argument("--finish", nargs="+", default=[], help=argparse.SUPPRESS)  # what runs in the background
    rollout.set_defaults(run=_rollout)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return int(text)


def _rollout(options: argparse.Namespace) -> int:
    from cloudtolocalllm.cli.rollout import rollout

    return rollout(options)
