"""A bridge on an encrypted store: a chat, a search, a back-up, a restart; and commands of the owner beside it."""

from pathlib import Path

import pytest
from tests.support.home_parts import begin, event, finish, home
from tests.support.scripted_engine import Asked, scripted_engine

from cloudtolocalllm.bridge.store import encryption
from cloudtolocalllm.bridge.store.errors import StoreKeyError
from cloudtolocalllm.cli.main import main

PROMPT, ANSWER, TITLE = "where do quokkas sleep", "under the marmalade tree", "zeppelins by night"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bridge").mkdir(mode=0o700)
    return tmp_path / "bridge"


def found_in(folder: Path) -> set[str]:
    """Return what of the chat is in any file of a bridge's folder."""
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert sum(map(len, files)) > 50_000
    return {text for text in (PROMPT, ANSWER, TITLE) if any(text.encode() in file for file in files)}


async def answer(asked: Asked) -> None:
    begin(asked)
    asked.chunk(event(ANSWER + " "))
    asked.chunk(event("in the shade"))
    finish(asked)


@pytest.mark.parametrize("kind", ["clear", "encrypted"])
async def test_a_chat_is_kept_and_found_and_nothing_of_it_is_on_the_disk(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scan finds all of it in a store that is not encrypted, so that it can fail."""
    expected = {PROMPT, ANSWER, TITLE} if kind == "clear" else set()
    store, key = folder / "credential.home.db", folder.parent / "store-key"
    if kind == "encrypted":
        encryption.encrypt(store, f"file:{key}")
    data = ["--data-dir", str(folder)]
    async with scripted_engine(answer=answer) as engine:
        async with home(folder, engine.url) as client:
            talk = (await client.get("POST", "/conversations", {"title": TITLE}))["id"]
            path = f"/conversations/{talk}/messages"
            note = await client.get("POST", path, {"role": "user", "content": PROMPT})
            run = await client.start(talk, note["id"])
            text, ended = await client.watched(run["id"])
            assert (text, ended["state"]) == (ANSWER + " in the shade", "done")
            assert found_in(folder) == expected, "while it is open"
            hits = (await client.get("GET", "/search", query="marmalade"))["hits"]
            assert [hit["title"] for hit in hits] == [TITLE]
            assert main(["home", "backup", *data]) == 0  # the commands find the key by the note
            saved = capsys.readouterr().out.strip()
            assert main(["bridge", "devices", *data]) == 0
            assert main(["bridge", "encrypt-store", "--key", f"file:{key}", *data]) == 1
            assert "another one that runs" in capsys.readouterr().err
            assert found_in(folder) == expected, "while it is open, with a back-up"
        assert found_in(folder) == expected
        async with home(folder, engine.url) as client:
            await client.get("DELETE", f"/conversations/{talk}", status=204)
        assert main(["home", "restore", saved, *data]) == 0
        assert found_in(folder) == expected
        async with home(folder, engine.url) as client:
            messages = (await client.get("GET", f"/conversations/{talk}"))["messages"]
            assert [message["content"] for message in messages] == [PROMPT, ANSWER + " in the shade"]


async def test_a_bridge_without_the_key_does_not_start(folder: Path) -> None:
    store, key = folder / "credential.home.db", folder.parent / "store-key"
    encryption.encrypt(store, f"file:{key}")
    async with home(folder) as client:
        await client.get("POST", "/conversations", {"title": TITLE})
    elsewhere = key.rename(folder.parent / "elsewhere")
    before = store.read_bytes()
    with pytest.raises(StoreKeyError, match="got FileNotFoundError"):
        async with home(folder):
            pass
    assert store.read_bytes() == before
    async with home(folder, store_key=f"file:{elsewhere}") as client:
        assert len((await client.get("GET", "/conversations"))["conversations"]) == 1


async def test_a_bridge_that_expects_encryption_does_not_start_in_the_clear(folder: Path) -> None:
    async with home(folder) as client:
        await client.get("POST", "/conversations", {"title": TITLE})
    (folder.parent / "store-key").write_text("ab" * 32)
    (folder.parent / "store-key").chmod(0o600)
    with pytest.raises(StoreKeyError, match="got one in the clear"):
        async with home(folder, store_key=f"file:{folder.parent / 'store-key'}"):
            pass
