"""`deploy/rollout` runs with the machine's own Python and nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PARTS = ["cli.main", "cli.rollout", "cli.rollout_options", "ops.engine", "ops.rollout", "ops.rollout_plan"]
BARE = """
import sys
sys.path.insert(0, sys.argv[1])
from cloudtolocalllm.cli.main import main
status = main(["rollout", "api-backend", "--project-dir", "/nonexistent"])
import cloudtolocalllm.cli.rollout, cloudtolocalllm.ops.rollout
from pathlib import Path
foreign = [n for n, m in sys.modules.items() if "site-packages" in (getattr(m, "__file__", None) or "")]
assert not foreign, foreign
sys.exit(status)
"""


def test_it_needs_nothing_but_python() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", BARE, str(ROOT / "src")], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2, done.stderr
    assert "expected docker-compose.yml in /nonexistent" in done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_it_imports_the_standard_library_and_our_own(part: str) -> None:
    source = (ROOT / "src" / "cloudtolocalllm" / Path(*part.split("."))).with_suffix(".py").read_text()
    tops = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            tops.add((node.module or "").split(".")[0])
    assert tops <= set(sys.stdlib_module_names) | {"cloudtolocalllm"}


def test_the_wrapper_says_what_it_needs(tmp_path: Path) -> None:
    """With no Python that is new enough in the path."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(
        [str(ROOT / "deploy" / "rollout"), "all"],
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": str(tools)},
    )
    assert done.returncode == 1
    assert "expected Python 3.11 or newer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "expected one of redis, streaming-proxy-manager"),
        (["web-app", "--at-a-time", "0"], "expected a whole number of at least 1"),
        ([], "required: service"),
    ],
)
def test_wrong_commands_say_what_was_expected(arguments: list[str], said: str) -> None:
    done = subprocess.run([str(ROOT / "deploy" / "rollout"), *arguments], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert said in done.stderr
