"""A laptop that is paired without a link, through the whole platform: who is listed is the API's to say."""

import tempfile
from pathlib import Path

import pytest
from tests.support.connect_process import connect, run
from tests.support.stack import Stack
from tests.support.terminal import at_terminal

pytestmark = pytest.mark.timeout(150)


async def test_words_are_compared_and_the_home_answers(paced_stack: Stack) -> None:
    stack = paced_stack
    at_home = ["bridge", "devices", "--data-dir", str(stack.data_dir / "bridge")]
    with tempfile.TemporaryDirectory(prefix="c2l-test-") as name:
        folder, key = Path(name) / "laptop", Path(name) / "key"
        key.write_text(stack.api_key)
        arguments = ["--server", stack.url, "--key-file", str(key), "--name", "words", "--data-dir", str(folder)]
        async with at_terminal("connect", "add", *arguments, "--no-keyring") as terminal:
            await terminal.until("Type yes or no: ")
            listed = (await run(at_home)).out
            (line,) = [each for each in listed.splitlines() if "WAITS" in each]
            words = listed.partition("these words: ")[2].partition("\n")[0]
            assert len(words.split()) == 8
            assert words in " ".join(terminal.shown.split())
            assert (await run([*at_home, "--approve", line.split()[0]])).status == 0
            terminal.type("yes\n")
            await terminal.until("This computer is paired with")
            assert await terminal.ended() == 0
        checked = await connect(folder, "--check")
        assert "answers, sealed" in checked.out, checked.err
        assert (await run([*at_home, "--remove", line.split()[0]])).status == 0
