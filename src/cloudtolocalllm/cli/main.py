"""Reads the command line."""


def main() -> int:
    """Run the command."""
    raise NotImplementedError
