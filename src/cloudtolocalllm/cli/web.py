"""Finds the web build."""

from pathlib import Path

import cloudtolocalllm


def web_root() -> Path | None:
    """Return the folder of the built page: inside the installed package, or the checkout's web/dist; else None."""
    package = Path(cloudtolocalllm.__file__).parent
    for folder in (package / "_web", package.parents[1] / "web" / "dist"):
        if (folder / "index.html").is_file():
            return folder
    return None
