"""Writes the generated reference pages: docs/reference/settings.md and problems.md. `--check` only compares."""

import sys
from pathlib import Path

from cloudtolocalllm.cli.services import SERVICES, settings_class
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.settings import describe

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py; run it after a change. -->\n"


def settings_page() -> str:
    """Return the page of every service's settings."""
    lines = [
        "# Settings",
        NOTE,
        "Each service reads its settings from the environment once, at its start. All faults are reported together;",
        "an unknown variable with a service's prefix is one. `cloudtolocalllm up` sets them for the parts it starts.",
        "`C2L_LOG_LEVEL` (DEBUG, INFO, WARNING, ERROR) holds for every service.",
    ]
    for name, service in SERVICES.items():
        lines += ["", f"## {name}", "", "| variable | default | meaning |", "|---|---|---|"]
        for item in describe(settings_class(service), service.prefix):
            default = "required" if item.default is None else f"`{item.default}`" if item.default else ""
            lines.append(f"| `{item.variable}` | {default} | {item.help} |".replace("\n", " "))
    return "\n".join(lines) + "\n"


def problems_page() -> str:
    """Return the page of every problem type."""
    lines = [
        "# Problem types",
        NOTE,
        "Errors of the platform are `application/problem+json` (RFC 9457). `type` is for programs, `detail` for",
        "people. The member `error` repeats the text where OpenAI's and Ollama's clients look for it. An engine's",
        "own errors pass through as the engine sent them.",
        "",
        "| type | status | title |",
        "|---|---|---|",
    ]
    lines += [f"| `{p.value.uri}` | {p.value.status} | {p.value.title} |" for p in Problem]
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings_page, "problems.md": problems_page}


def main() -> int:
    """Write the pages, or compare them."""
    stale = []
    for name, make in PAGES.items():
        path = REFERENCE / name
        text = make()
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run python scripts/reference.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
