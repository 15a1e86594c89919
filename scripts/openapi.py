"""Writes docs/reference/openapi.json from the code. With --check, only tells whether it is current."""

import json
import sys
from pathlib import Path

from cloudtolocalllm.api.app import build_app

PATH = Path(__file__).parent.parent / "docs" / "reference" / "openapi.json"


def document() -> str:
    """Return the OpenAPI document's text."""
    return json.dumps(build_app(None).openapi(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    text = document()
    if "--check" in sys.argv[1:]:
        current = PATH.exists() and PATH.read_text() == text
        if not current:
            print(f"{PATH.name} is not current: run python scripts/openapi.py", file=sys.stderr)
        return 0 if current else 1
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
