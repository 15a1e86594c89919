"""One command that starts any part."""

from cloudtolocalllm.cli.main import main

__all__ = ["main"]
