"""Holds the platform's ports and hands them to nginx."""

import argparse

from cloudtolocalllm.edge.ports import holder
from cloudtolocalllm.runtime import logs
from cloudtolocalllm.runtime.settings import environment


def ports(options: argparse.Namespace) -> int:
    """Hold ports until told to stop."""
    logs.configure("ports", level=environment().get("C2L_LOG_LEVEL", "INFO").upper())
    return holder.run(options.socket, options.addresses)
