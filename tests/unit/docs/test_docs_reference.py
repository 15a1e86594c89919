"""The generated pages are current, and links between pages lead somewhere."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts.reference import PAGES, REFERENCE

ROOT = Path(__file__).resolve().parents[3]
PAGES_OF_PEOPLE = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    make: Callable[[], str] = PAGES[name]
    assert (REFERENCE / name).read_text() == make(), "run: python -m scripts.reference"


@pytest.mark.parametrize("page", PAGES_OF_PEOPLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_index_lists_every_page() -> None:
    docs = ROOT / "docs"
    listed = {(docs / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", (docs / "README.md").read_text())}
    pages = {path.resolve() for path in docs.glob("*/*.md")}
    assert sorted(pages - listed) == []
