import io
import json
import logging
from collections.abc import Iterator

import pytest

from cloudtolocalllm.runtime import logs


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_lines_with_extra_members() -> None:
    out = io.StringIO()
    logs.configure("edge", stream=out)
    logging.getLogger("edge.access").info("request %s", "done", extra={"status": 200, "odd": {1}})
    logging.getLogger("x").debug("not shown")
    (line,) = out.getvalue().splitlines()
    value = json.loads(line)
    assert value["event"] == "request done"
    assert (value["service"], value["logger"], value["level"], value["status"]) == (
        "edge",
        "edge.access",
        "info",
        200,
    )
    assert value["time"].endswith("+00:00")
    assert value["odd"] == "{1}"


def test_line_ends_and_exceptions_stay_within_one_json_line() -> None:
    out = io.StringIO()
    logs.configure("edge", stream=out)
    try:
        int("a\nb")
    except ValueError:
        logging.getLogger("x").exception("two\nlines")
    (line,) = out.getvalue().splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_a_terminal_gets_text_for_people() -> None:
    out = Terminal()
    logs.configure("edge", stream=out, level="DEBUG")
    logging.getLogger("x").debug("ready", extra={"port": 80})
    assert "debug" in out.getvalue()
    assert "edge     ready port=80" in out.getvalue()
