"""Writes what an image is made of as CycloneDX 1.5: `sbom.py TITLE PYTHON_FOLDER [NPM.json]`, to standard output.

Python packages from their installed metadata, Debian's from dpkg's status, npm's as `npm sbom` lists them. The same
content gives the same text: the serial number is made of it, and there is no date.
"""

import json
import sys
import uuid
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

DPKG = Path("/var/lib/dpkg/status")


def component(kind: str, name: str, version: str, license_: str = "") -> dict[str, Any]:
    """Return one component."""
    separator = "/debian/" if kind == "deb" else "/"
    found: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:{kind}{separator}{name}@{version}",
    }
    if license_ and len(license_) < 100:
        found["licenses"] = [{"license": {"name": license_}}]
    return found


def python(folder: str) -> list[dict[str, Any]]:
    """Return the packages that are installed in a folder."""
    found = []
    for one in distributions(path=[folder]):
        license_ = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
        found.append(component("pypi", one.metadata["Name"].lower(), one.version, license_))
    return found


def debian() -> list[dict[str, Any]]:
    """Return the installed Debian packages; none on another system."""
    if not DPKG.exists():
        return []
    found = []
    for paragraph in DPKG.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            found.append(component("deb", fields["Package"], fields["Version"]))
    return found


def npm(path: str) -> list[dict[str, Any]]:
    """Return what `npm sbom` listed."""
    listed = json.loads(Path(path).read_text())["components"]
    keys = ("type", "name", "version", "purl", "licenses")
    return [{key: one[key] for key in keys if key in one} for one in listed]


def main() -> int:
    """Write the document."""
    title, folder, *more = sys.argv[1:]
    components = [*python(folder), *debian(), *(one for path in more for one in npm(path))]
    components.sort(key=lambda one: str(one["purl"]))
    text = json.dumps(components, sort_keys=True)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": title}},
        "components": components,
    }
    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
