"""axe-core over the page as it is just now."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from tests.support.require import require

AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"


def check(page: Page) -> None:
    """Expect no violation and no sideways scrolling."""
    require(AXE.is_file(), "axe-core", "cd web && npm ci")
    page.evaluate(AXE.read_text())
    result: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    found = [(v["id"], v["help"], [node["html"][:160] for node in v["nodes"]]) for v in result["violations"]]
    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # What scrolls within the page must not do so sideways either.
    assert page.evaluate("[...document.querySelectorAll('main')].every(e => e.scrollWidth <= e.clientWidth)")
