"""The tree of messages against a model of it: 200 random steps, then the same after the file was opened again."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from tests.support.home_store import DirectStore

from cloudtolocalllm.bridge.store import changes, conversations, messages, runs, transfer
from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.messages import NewMessage
from cloudtolocalllm.bridge.store.runs import End, NewRun, Piece, RunState, TextKind

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@dataclass
class Told:
    parent: str | None
    content: str


@dataclass
class ModelRun:
    message: str
    text: str = ""
    active: bool = True


@dataclass
class ModelConversation:
    title: str
    messages: dict[str, Told] = field(default_factory=dict)
    """In the order in which they were added."""
    leaf: str | None = None
    runs: dict[str, ModelRun] = field(default_factory=dict)

    def below(self, id_: str) -> set[str]:
        gone = {id_}
        for other, told in self.messages.items():
            if told.parent in gone:
                gone.add(other)
        return gone

    def newest_below(self, id_: str) -> str:
        while children := [other for other, told in self.messages.items() if told.parent == id_]:
            id_ = children[-1]
        return id_

    def path(self) -> list[str]:
        found, at = [], self.leaf
        while at is not None:
            found.append(at)
            at = self.messages[at].parent
        return found[::-1]


class TreeMachine(RuleBasedStateMachine):
    talks = Bundle("talks")
    notes = Bundle("notes")
    answers = Bundle("answers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = DirectStore(Path(self.folder.name) / "a.home.db")
        self.model: dict[str, ModelConversation] = {}
        self.seen = 0

    def teardown(self) -> None:
        before = self.everything()
        self.store.reopen()
        assert self.everything() == before
        assert self.store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not self.store.db.execute("PRAGMA foreign_key_check").fetchall()
        self.store.close()
        self.folder.cleanup()

    def everything(self) -> object:
        return {id_: (self.store(conversations.get, id_), self.store(messages.tree, id_)) for id_ in self.model}

    @rule(target=talks, title=TEXTS)
    def create(self, title: str) -> str:
        self.store.clock.advance(1)
        id_ = self.store(conversations.create, title).id
        self.model[id_] = ModelConversation(title)
        return id_

    @rule(target=notes, talk=talks, content=TEXTS, data=st.data())
    def add(self, talk: str, content: str, data: st.DataObject) -> object:
        model = self.model.get(talk)
        if model is None:
            with pytest.raises(NotHereError):
                self.store(messages.add, talk, NewMessage("user", content))
            return multiple()
        parent = data.draw(st.sampled_from([None, *model.messages]))
        id_ = self.store(messages.add, talk, NewMessage("user", content, parent)).id
        model.messages[id_] = Told(parent, content)
        model.leaf = id_
        return talk, id_

    @rule(target=notes, note=notes, content=TEXTS)
    def edit(self, note: tuple[str, str], content: str) -> object:
        talk, id_ = note
        model = self.model.get(talk)
        if model is None or id_ not in model.messages:
            with pytest.raises(NotHereError):
                self.store(messages.edit, talk, id_, content)
            return multiple()
        new = self.store(messages.edit, talk, id_, content).id
        model.messages[new] = Told(model.messages[id_].parent, content)
        model.leaf = new
        return talk, new

    @rule(note=notes)
    def choose(self, note: tuple[str, str]) -> None:
        talk, id_ = note
        model = self.model.get(talk)
        if model is not None and id_ in model.messages:
            self.store(messages.choose, talk, id_)
            model.leaf = model.newest_below(id_)

    @rule(note=notes)
    def delete_message(self, note: tuple[str, str]) -> None:
        talk, id_ = note
        model = self.model.get(talk)
        if model is None or id_ not in model.messages:
            return
        gone = model.below(id_)
        if any(run.active and run.message in gone for run in model.runs.values()):
            with pytest.raises(ConflictError):
                self.store(messages.delete, talk, id_)
            return
        self.store(messages.delete, talk, id_)
        parent = model.messages[id_].parent
        for other in gone:
            del model.messages[other]
        model.runs = {name: run for name, run in model.runs.items() if run.message not in gone}
        if model.leaf in gone:
            tops = [other for other, told in model.messages.items() if told.parent is None]
            top = parent if parent is not None else (tops[-1] if tops else None)
            model.leaf = None if top is None else model.newest_below(top)

    @rule(talk=talks)
    def delete(self, talk: str) -> None:
        model = self.model.get(talk)
        if model is not None and any(run.active for run in model.runs.values()):
            with pytest.raises(ConflictError):
                self.store(conversations.delete, talk)
            return
        self.store(conversations.delete, talk)
        self.model.pop(talk, None)

    @rule(target=answers, note=notes)
    def begin_run(self, note: tuple[str, str]) -> object:
        talk, id_ = note
        model = self.model.get(talk)
        if model is None or id_ not in model.messages:
            with pytest.raises(NotHereError):
                self.store(runs.begin, NewRun(talk, id_, "tiny"))
            return multiple()
        run = self.store(runs.begin, NewRun(talk, id_, "tiny"))
        model.messages[run.message] = Told(id_, "")
        model.leaf = run.message
        model.runs[run.id] = ModelRun(run.message)
        return talk, run.id

    def run_of(self, answer: tuple[str, str]) -> ModelRun | None:
        talk, id_ = answer
        model = self.model.get(talk)
        return None if model is None else model.runs.get(id_)

    @rule(answer=answers, text=TEXTS)
    def append(self, answer: tuple[str, str], text: str) -> None:
        run = self.run_of(answer)
        if run is None or not run.active:
            with pytest.raises(ConflictError):
                self.store(runs.append, answer[1], [Piece(0, TextKind.CONTENT, text)])
            return
        self.store(runs.append, answer[1], [Piece(len(run.text.encode()), TextKind.CONTENT, text)])
        run.text += text

    @rule(answer=consumes(answers), state=st.sampled_from([RunState.DONE, RunState.STOPPED, RunState.FAILED]))
    def finish(self, answer: tuple[str, str], state: RunState) -> None:
        self.store(runs.finish, answer[1], End(state))
        run = self.run_of(answer)
        if run is not None and run.active:
            run.active = False
            self.model[answer[0]].messages[run.message].content = run.text

    @rule(answer=answers, data=st.data())
    def read(self, answer: tuple[str, str], data: st.DataObject) -> None:
        run = self.run_of(answer)
        if run is None:
            return
        start = data.draw(st.integers(0, len(run.text)))
        offset = len(run.text[:start].encode())
        got, at = "", offset
        while pieces := self.store(runs.read, answer[1], at, data.draw(st.integers(1, 12))):
            assert pieces[0].at == at
            got += "".join(piece.text for piece in pieces)
            at = pieces[-1].end
        assert got == run.text[start:]

    @rule()
    def crash(self) -> None:
        """The process ends without a word, and begins again."""
        self.store.reopen()
        self.store(lambda tx: runs.left_over(tx, within=0))
        for model in self.model.values():
            for run in model.runs.values():
                if run.active:
                    run.active = False
                    model.messages[run.message].content = run.text

    @rule(talk=talks)
    def export_and_import(self, talk: str) -> None:
        model = self.model.get(talk)
        if model is None or any(run.active for run in model.runs.values()):
            return
        document = self.store(transfer.export, talk)
        self.store(conversations.delete, talk)
        assert self.store(transfer.import_, document).added
        assert self.store(transfer.export, talk) == document

    @invariant()
    def equal(self) -> None:
        listed = self.store(conversations.page).conversations
        assert {c.id: (c.title, c.leaf) for c in listed} == {
            id_: (model.title, model.leaf) for id_, model in self.model.items()
        }
        for id_, model in self.model.items():
            tree = self.store(messages.tree, id_)
            assert {m.id: Told(m.parent, m.content) for m in tree} == model.messages
            assert [m.id for m in self.store(messages.path, id_, model.leaf)] == model.path()

    @invariant()
    def every_change_has_a_rising_number(self) -> None:
        newest = self.store(changes.newest)
        page = self.store(changes.since, self.seen, self.store(changes.epoch))
        assert [change.n for change in page.changes] == list(range(self.seen + 1, newest + 1))
        self.seen = newest


TestTree = TreeMachine.TestCase
TestTree.settings = settings(
    max_examples=6, stateful_step_count=200, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectStore]:
    made = DirectStore(tmp_path / "a.home.db")
    yield made
    made.close()


def test_a_conversation_of_thousands_of_messages_in_a_row_is_deleted(store: DirectStore) -> None:
    talk = store(conversations.create, "long").id

    def fill(tx: object) -> None:
        parent = None
        for _ in range(2500):  # SQLite follows a cascade for 1,000 steps only
            parent = store.db.execute(
                "INSERT INTO messages (id, conversation, parent, role, content, created) "
                "VALUES (lower(hex(randomblob(16))), 1, ?, 'user', 'x', 0)",
                (parent,),
            ).lastrowid

    store(fill)
    first = store(messages.tree, talk)[0]
    store(messages.delete, talk, store(messages.tree, talk)[1].id)
    assert [m.id for m in store(messages.tree, talk)] == [first.id]
    store(fill)
    store(conversations.delete, talk)
    assert store(conversations.page).conversations == ()


def test_a_parent_of_another_conversation_is_refused(store: DirectStore) -> None:
    one, two = store(conversations.create, "1").id, store(conversations.create, "2").id
    message = store(messages.add, one, NewMessage("user", "hi")).id
    with pytest.raises(NotHereError):
        store(messages.add, two, NewMessage("user", "hi", message))


def test_asking_twice_with_the_same_id_makes_one(store: DirectStore) -> None:
    talk = store(conversations.create, "1", id_="a" * 16).id
    assert store(conversations.create, "other", id_="a" * 16).title == "1"
    first = store(messages.add, talk, NewMessage("user", "hi", id="m" * 16))
    assert store(messages.add, talk, NewMessage("user", "hi", id="m" * 16)) == first
    with pytest.raises(ConflictError):
        store(messages.add, talk, NewMessage("user", "other", id="m" * 16))
    assert len(store(messages.tree, talk)) == 1


@pytest.mark.parametrize("content", ["half \ud83d", "x" * (messages.MAX_CONTENT + 1)])
def test_text_that_cannot_be_kept_is_refused(store: DirectStore, content: str) -> None:
    talk = store(conversations.create, "1").id
    with pytest.raises(ConflictError):
        store(messages.add, talk, NewMessage("user", content))


@pytest.mark.parametrize(
    "content", ["\x00 nul \x00", "a\u0301 \U0001f469\u200d\U0001f4bb \u202e", "x" * messages.MAX_CONTENT]
)
def test_odd_and_huge_texts_come_back_as_they_were(store: DirectStore, content: str) -> None:
    talk = store(conversations.create, content[:100]).id
    store(messages.add, talk, NewMessage("user", content))
    store.reopen()
    assert store(messages.tree, talk)[0].content == content
    assert store(conversations.get, talk).title == content[:100]


def test_pages_give_every_conversation_once(store: DirectStore) -> None:
    made = []
    for number in range(25):
        store.clock.advance(number % 3)  # some at the same time
        made.append(store(conversations.create, str(number)).id)
    found: list[str] = []
    after = None
    while True:
        page = store(conversations.page, after=after, limit=4)
        found += [c.id for c in page.conversations]
        if (after := page.after) is None:
            break
    assert found == made[::-1]
