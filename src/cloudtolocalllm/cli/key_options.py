"""How a place for the home store's key is given on the command line."""

import argparse
from pathlib import Path

_FILE = "file:"


def key_place(text: str) -> str:
    """Return a place for the home store's key: a file's path may begin with ~ or be relative."""
    from cloudtolocalllm.bridge.store.key_place import parsed  # only these commands need it

    if text.startswith(_FILE) and len(text) > len(_FILE):
        text = f"{_FILE}{Path(text.removeprefix(_FILE)).expanduser().absolute()}"
    try:
        return parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
