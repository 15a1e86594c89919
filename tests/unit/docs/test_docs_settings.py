"""No setting, variable or option is undocumented, and nothing is documented that does not exist."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from scripts.compose_reference import (
    COMPOSE_FILE,
    MEANINGS,
    PROGRAMS,
    UndescribedError,
    compose_page,
    options,
    variables,
)
from scripts.reference import settings_page

import cloudtolocalllm
from cloudtolocalllm.cli.services import SERVICES, settings_class
from cloudtolocalllm.runtime.settings import SettingsError, describe, load

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
SETTINGS = {item.variable for one in SERVICES.values() for item in describe(settings_class(one), one.prefix)}
EVERYWHERE = {"C2L_LOG_LEVEL"}
OF_TOOLS = {
    "C2L_REQUIRE": "tests/support/require.py",
    "C2L_DEV_SERVER": "web/vite.config.ts",
    "C2L_BENCH_CONTAINERS": "bench/cases/container_start.py",
}
"""What only a developer's tool takes, and where. Names that begin with C2L_TEST_ are the tests'."""
NAME = re.compile(r"\bC2L_[A-Z0-9_]*[A-Z0-9]\b(?!_|…)")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_each_service_has_a_page_of_its_settings() -> None:
    page = settings_page()
    for name in SERVICES:
        assert f"\n## {name}\n" in page
    for variable in SETTINGS:
        assert f"| `{variable}` |" in page


def test_no_settings_class_is_left_out() -> None:
    found = set()
    for module in pkgutil.walk_packages(cloudtolocalllm.__path__, "cloudtolocalllm."):
        if module.name.rpartition(".")[2] == "settings" and module.name != "cloudtolocalllm.runtime.settings":
            here = vars(importlib.import_module(module.name)).values()
            found |= {cls for cls in here if isinstance(cls, type) and cls.__module__ == module.name}
    declared = {
        cls for cls in found if any("help" in f.metadata for f in getattr(cls, "__dataclass_fields__", {}).values())
    }
    assert declared == {settings_class(service) for service in SERVICES.values()}


def test_every_setting_says_what_it_does() -> None:
    for service in SERVICES.values():
        for item in describe(settings_class(service), service.prefix):
            assert len(item.help) > 10, item.variable


def test_a_variable_that_is_no_setting_stops_a_service() -> None:
    """So one that is left undocumented cannot work in secret."""
    for service in SERVICES.values():
        with pytest.raises(SettingsError, match=f"{service.prefix}NO_SUCH is not a setting"):
            load(settings_class(service), service.prefix, {f"{service.prefix}NO_SUCH": "x"})


def test_every_variable_of_compose_is_described_and_no_other() -> None:
    described = [name for table in MEANINGS.values() for name in table]
    assert sorted(described) == sorted(variables(COMPOSE_FILE.read_text()))
    for table in MEANINGS.values():
        assert all(len(meaning) > 10 for meaning in table.values())


@pytest.mark.parametrize("change", ["new", "gone"])
def test_the_page_cannot_be_made_when_they_differ(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = COMPOSE_FILE.read_text()
    changed = tmp_path / "docker-compose.yml"
    changed.write_text(text + "# ${C2L_NEW:-}\n" if change == "new" else re.sub(r"\$\{C2L_WARM[^}]*}", "2", text))
    monkeypatch.setattr("scripts.compose_reference.COMPOSE_FILE", changed)
    with pytest.raises(UndescribedError, match="C2L_NEW" if change == "new" else "C2L_WARM"):
        compose_page()


def test_what_compose_sets_are_settings() -> None:
    """A wrong name would stop the container; here it is told before."""
    set_by_compose = set(re.findall(r"^ +(C2L_[A-Z0-9_]+):", COMPOSE_FILE.read_text(), re.MULTILINE))
    assert set_by_compose - EVERYWHERE <= SETTINGS
    assert len(set_by_compose) > 40


def test_what_the_installer_writes_compose_takes() -> None:
    steps = "".join(path.read_text() for path in sorted((DEPLOY / "install.d").glob("*.sh")))
    written = set(re.findall(r'say "([A-Z][A-Z0-9_]+)=', steps))
    assert {"C2L_DOMAIN", "C2L_SUBNET", "COMPOSE_PROJECT_NAME"} <= written
    assert written <= set(variables(COMPOSE_FILE.read_text()))


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_lists_every_option_and_no_other(program: str) -> None:
    text = (DEPLOY / program).read_text()
    loop = text[text.index("case $1 in\n    --") :]
    taken = set(re.findall(r"(?<![\w-])--[a-z-]+(?=[ |)\\\n])", loop[: loop.index("--help)")])) - {"--help"}
    told = {name for names, _ in options(program) for name in re.findall(r"--[a-z-]+", names)}
    assert told == taken
    assert all(meaning for _, meaning in options(program))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_no_variable_that_does_not_exist(page: Path) -> None:
    known = SETTINGS | EVERYWHERE | set(OF_TOOLS) | set(variables(COMPOSE_FILE.read_text()))
    named = {name for name in NAME.findall(page.read_text()) if not name.startswith("C2L_TEST_")}
    assert named <= known


@pytest.mark.parametrize("name", OF_TOOLS)
def test_variables_of_tools_are_taken_there(name: str) -> None:
    assert name in (ROOT / OF_TOOLS[name]).read_text()


def test_sources_read_no_variable_that_is_not_documented() -> None:
    prefixes = {service.prefix.rstrip("_") for service in SERVICES.values()}
    for path in sorted((ROOT / "src").rglob("*.py")):
        named = set(re.findall(r'"(C2L_[A-Z0-9_]*[A-Z0-9])_?"', path.read_text()))
        assert named <= SETTINGS | EVERYWHERE | prefixes, path
