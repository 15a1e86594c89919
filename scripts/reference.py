"""Writes the generated pages of docs/reference: settings, compose, problems, audit-events, home-api.

`python -m scripts.reference`; with `--check` it only compares.
"""

import sys
from pathlib import Path

from scripts.compose_reference import compose_page

from cloudtolocalllm.audit.auditor import SINGLY, WINDOW
from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.audit.record import OCSF_VERSION
from cloudtolocalllm.bridge.home_api.api import describe_api
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


def audit_page() -> str:
    """Return the page of every event in the audit log."""
    lines = [
        "# Audit events",
        NOTE,
        "Each service writes its own log, one JSON object a line, with the members of the Open Cybersecurity Schema",
        f"Framework (OCSF) {OCSF_VERSION}. `metadata.event_code` is the event below, `status_code` its reason,",
        "`actor.user.uid` the user's pseudonym, `entity.uid` the thing that it happened to (an id),",
        "`src_endpoint.uid` the client, `metadata.correlation_uid` the request's id as in the other logs,",
        "`metadata.uid` the record's own.",
        "",
        "Never in a record: bodies, names of models, tokens, keys, e-mail addresses, names of people or machines,",
        "and addresses. A client appears under a hash of its address (of IPv6 the first 64 bits) whose key is",
        "random, in memory only and thrown away at midnight UTC: told from others for that day, and never again.",
        "",
        f"Events marked *bounded* can be caused by strangers: of each with the same reason, the first {SINGLY} in",
        f"{WINDOW:.0f} s are written one by one, the others as one record with `count`, `start_time` and `end_time`.",
        "",
        "How the log is kept and checked: [decision 5](../decisions/0005-audit-log.md) and `cloudtolocalllm audit`",
        "([command line](cli.md)).",
        "",
        "| event | OCSF class | activity | outcome | severity | what happened | reasons |",
        "|---|---|---|---|---|---|---|",
    ]
    for event in Event:
        kind = event.kind
        reasons = ", ".join(f"`{reason.value}`" for reason in kind.reasons)
        meaning = f"{kind.meaning} About: {kind.entity}." if kind.entity else kind.meaning
        lines.append(
            f"| `{kind.code}` | {kind.class_.caption} {kind.class_.uid} | {kind.activity} {kind.activity_id} "
            f"| {kind.status.name.lower()} | {kind.severity.name.lower()} "
            f"| {meaning}{' *bounded*' if kind.frequent else ''} | {reasons} |"
        )
    return "\n".join(lines) + "\n"


PAGES = {
    "settings.md": settings_page,
    "compose.md": compose_page,
    "problems.md": problems_page,
    "audit-events.md": audit_page,
    "home-api.json": describe_api,
}


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
        sys.stderr.write(f"out of date: {', '.join(stale)}; run python -m scripts.reference\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
