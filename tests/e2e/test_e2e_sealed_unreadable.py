"""Whoever runs the cloud, and looks at everything in it, reads nothing of what people and their machines say.

A recorder stands on every hop: sockets, memory of all processes, logs, files, Redis. On the plain route, which the
cloud passes on in the clear, it must find everything: so it would be seen here if the sealed route did not hold.
All of this with the embedded edge, and with nginx in its place.
"""

import asyncio
import base64
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest
from tests.support.cloud_recorder import Findings, RecordedDeployment, Recorder
from tests.support.deployment import PROGRAM, await_connected, decide, running_deployment, shown_code, sign_in
from tests.support.marked_engine import DEADLINE, MarkedEngine, marked_engine
from tests.support.marks import Search
from tests.support.recorded_nginx import RecordedNginx
from tests.support.sealed_client import HttpOuter, SealedClient
from tests.support.stack import ROOT, wait_for

from cloudtolocalllm.sealed.pairing import PairingLink, read_link

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

STEM = "zq7vkxw3j"
THEIRS = {
    name: f"{STEM}{name}{STEM[:4]}"
    for name in ("prompt", "answer", "model", "file", "inside", "search", "pulled", "device", "title")
}
"""What people and their machines say."""
KNOWN = "machine"
"""What the cloud does know, in all its parts that have to do with it: the machine's name, as it was told."""
MARKS = {**THEIRS, KNOWN: f"{STEM}{KNOWN}{STEM[:4]}"}
REDIS = ("--appendonly", "yes", "--appendfsync", "always", "--rdbcompression", "no")
"""With all that is ever written to it on disk, and readable."""
WIRE = {"client - edge", "home - edge", "edge - api", "edge - proxy", "api - manager", "api - redis"}
CARRYING = ("client - edge", "home - edge", "edge - proxy")
"""Hops by which requests and answers go."""


@dataclass
class Place:
    """A deployment with a recorder on it, a home that is paired with it, and its user's key."""

    deployment: RecordedDeployment
    engine: MarkedEngine
    recorder: Recorder
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.key}

    def kept_at_home(self) -> set[str]:
        """Return which marks the home's own files have."""
        files = [path for path in self.deployment.homes.rglob("*") if path.is_file()]
        return set().union(*(self.recorder.search.in_data(path.read_bytes()) for path in files))


def place_in(stack: ExitStack, kind: type[RecordedDeployment]) -> Place:
    engine = stack.enter_context(marked_engine(MARKS["answer"], f"{MARKS['model']}:7b"))
    deployment = stack.enter_context(running_deployment(redis_options=REDIS, kind=kind))
    assert isinstance(deployment, RecordedDeployment)
    home = MARKS[KNOWN]
    with sign_in(deployment, "alice") as alice:
        login = deployment.login(home, "--no-browser")
        decide(alice, shown_code(login))
        assert login.wait(30) == 0, login.said()
        await_connected(alice, home, deployment.bridge(home, engine.url, {"C2L_BRIDGE_ALLOW": "pull"}))
        made = alice.post("/api/auth/keys", json={"name": "laptop", "days": 1})
        assert made.status_code == 201, made.text
    recorder = Recorder(deployment, Search(STEM, MARKS))
    half = stack.enter_context(socket.create_connection(("127.0.0.1", deployment.ports["clients"])))
    half.sendall(f"GET /{home}".encode())  # what is not whole the edge has to hold
    wait_for(lambda: recorder.sees(KNOWN, "edge"), within=3 * DEADLINE, what="the edge to read what is held by it")
    half.close()
    return Place(deployment, engine, recorder, made.json()["key"])


@dataclass
class Recorded:
    """What was found after each route was used, and what was there to be found."""

    sealed: Findings
    plain: Findings
    at_home: set[str]
    at_engine: set[str]


EDGES = [
    pytest.param(RecordedDeployment, id="edge"),
    pytest.param(RecordedNginx, id="nginx", marks=pytest.mark.nginx),
]


@pytest.fixture(scope="module", params=EDGES)
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """Use the sealed route for everything, then the plain one for a chat."""
    with ExitStack() as stack, asyncio.Runner() as runner:
        place = place_in(stack, request.param)
        use_sealed(place, runner)
        sealed = place.recorder.findings()
        at_home, at_engine = place.kept_at_home(), place.recorder.search.in_data(b"".join(place.engine.got))
        watched(place, lambda: chat_plainly(place), place.engine.text)
        yield Recorded(sealed, place.recorder.findings(), at_home, at_engine)


def watched(place: Place, ask: Callable[[], str], answer: str) -> None:
    """Ask in a thread; look into memory when the request is under way, and in the middle of the answer."""
    place.engine.again()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            assert place.engine.asked.wait(DEADLINE), "expected the engine to be asked"
            place.recorder.look_into_memory()
            place.engine.begin.set()
            assert place.engine.half.wait(DEADLINE), "expected half an answer"
            place.recorder.look_into_memory()
        finally:
            place.engine.begin.set()
            place.engine.finish.set()
        assert asking.result(DEADLINE) == answer
    place.recorder.look_into_memory()


def chat_plainly(place: Place) -> str:
    """Ask on the plain route, with all that people say on the sealed one."""
    said = " ".join(mark for name, mark in THEIRS.items() if name not in ("answer", "model"))
    body = {"model": place.engine.model, "messages": [{"role": "user", "content": said * 20}], "stream": True}
    url, timeout = place.deployment.clients, DEADLINE
    with (
        httpx.Client(base_url=url, headers=place.headers, timeout=timeout) as client,
        client.stream("POST", "/ollama/api/chat", json=body) as response,
    ):
        return "".join(json.loads(line)["message"]["content"] for line in response.iter_lines())


# --- sealed ---


def use_sealed(place: Place, runner: asyncio.Runner) -> None:
    """Pair, chat in a conversation with a file, chat as another program does, search, and pull a model."""
    http = httpx.AsyncClient(timeout=DEADLINE)
    try:
        outer = HttpOuter(http, place.deployment.clients, place.headers)
        client = runner.run(SealedClient.paired(outer, link_of(place), MARKS["device"]))
        place.recorder.look_into_memory()
        watched(place, lambda: runner.run(converse(place, client)), place.engine.text)
        watched(place, lambda: runner.run(chat_sealed(place, client)), place.engine.text)
        hits = runner.run(client.ask("GET", f"/c2l/search?query={MARKS['search']}"))
        assert len(hits["hits"]) == 1
        place.recorder.look_into_memory()
        watched(place, lambda: runner.run(pull(place, client)), "done")
    finally:
        runner.run(http.aclose())


def link_of(place: Place) -> PairingLink:
    """Return a link as the owner makes it at home."""
    arguments = ("--server", place.deployment.server, "--data-dir", str(place.deployment.homes / MARKS[KNOWN]))
    command = [*PROGRAM, "bridge", "pair-device", *arguments]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    found = re.search(r"c2l1\.[A-Za-z0-9_.-]+", said)
    assert found is not None, said
    return read_link(found[0])


async def converse(place: Place, client: SealedClient) -> str:
    """Have a chat that is kept at home; return the answer."""
    stored = await client.ask("PUT", "/c2l/attachments", content=MARKS["inside"].encode() * 100)
    talk = (await client.ask("POST", "/c2l/conversations", {"title": MARKS["title"]}))["id"]
    attached = {"sha256": stored["sha256"], "name": f"{MARKS['file']}.png", "media_type": "image/png"}
    text = f"{MARKS['prompt']} {MARKS['search']} " * 20
    note = {"role": "user", "content": text, "attachments": [attached]}
    message = (await client.ask("POST", f"/c2l/conversations/{talk}/messages", note))["id"]
    started = {"model": place.engine.model, "parent": message}
    run = await client.ask("POST", f"/c2l/conversations/{talk}/runs", started)
    watch = await client.open("GET", f"/c2l/runs/{run['id']}/events?offset=0")
    return "".join([event["text"]["text"] async for event in watch.lines() if event["text"] is not None])


async def chat_sealed(place: Place, client: SealedClient) -> str:
    """Ask the engine as another program does, through `connect`; return the answer."""
    messages = [{"role": "user", "content": MARKS["prompt"] * 20}]
    asked = {"model": place.engine.model, "messages": messages, "stream": True}
    answer = await client.open("POST", "/ollama/api/chat", asked, exchange=bytes(16))
    assert answer.status == 200
    return "".join([line["message"]["content"] async for line in answer.lines()])


async def pull(place: Place, client: SealedClient) -> str:
    """Pull a model and watch it; return how it ended."""
    watch = await client.open("POST", "/c2l/models/pull", {"model": MARKS["pulled"]})
    assert watch.status == 200, await watch.read()
    events = [event async for event in watch.lines()]
    assert [name.partition(":")[0] for name in place.engine.pulled] == [MARKS["pulled"]]
    return str(events[-1]["state"])


def test_it_was_really_said(recorded: Recorded) -> None:
    """All of it was there to be found: at home, and at the engine."""
    assert recorded.at_engine >= {"prompt", "search", "model", "pulled"}
    assert recorded.at_home >= {"prompt", "answer", "model", "file", "inside", "search", "device", "title"}


def test_nothing_of_it_passed_any_socket(recorded: Recorded) -> None:
    found = recorded.sealed
    assert set(found.wire) == WIRE
    assert {hop: marks for hop, marks in found.wire.items() if marks - {KNOWN}} == {}
    assert all(found.passed[hop] > 20_000 for hop in CARRYING), found.passed


def test_nothing_of_it_was_in_anybodys_memory(recorded: Recorded) -> None:
    found = recorded.sealed
    assert {"edge", "api-a", "manager", "redis"} <= set(found.memory)
    assert any(name.startswith("proxy ") for name in found.memory)
    assert all(size > (2 if "edge " in name else 50) * 1_000_000 for name, size in found.read.items()), found.read
    assert {name: marks for name, marks in found.memory.items() if marks - {KNOWN}} == {}


def test_nothing_of_it_is_in_any_file(recorded: Recorded) -> None:
    found = recorded.sealed.disk
    assert {"logs/edge.log", "logs/api-a.log", "logs/manager.log"} <= set(found)
    assert {name: marks for name, marks in found.items() if marks - {KNOWN}} == {}


def test_what_the_cloud_does_know_is_found_in_every_kind_of_place(recorded: Recorded) -> None:
    """So the recorder looks where it should: the machine's name is known to the API and kept in Redis."""
    found = recorded.sealed
    for hop in ("home - edge", "edge - api", "api - redis"):
        assert KNOWN in found.wire[hop], hop
    for part in ("edge", "api-a", "redis"):
        assert any(KNOWN in marks for name, marks in found.memory.items() if name.partition(" ")[0] == part), part
    assert any(KNOWN in marks for name, marks in found.disk.items() if name.startswith("redis/"))


# --- plain: all of this can fail ---


def test_on_the_plain_route_the_recorder_finds_everything_on_the_wire(recorded: Recorded) -> None:
    for hop, marks in recorded.plain.wire.items():
        assert marks - {KNOWN} == (set(THEIRS) if hop in CARRYING else set()), hop


def test_on_the_plain_route_it_finds_everything_in_memory(recorded: Recorded) -> None:
    found = {name: marks - {KNOWN} for name, marks in recorded.plain.memory.items()}
    having = [name for name, marks in found.items() if marks == set(THEIRS)]
    assert {name.partition(" ")[0] for name in having} == {"edge", "proxy"}
    assert [name for name, marks in found.items() if marks and name not in having] == []


def test_the_recorder_finds_what_is_written_otherwise() -> None:
    search = Search(STEM, MARKS)
    mark = MARKS["prompt"].encode()
    mask = b"\x9a\x01\xfe\x40"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(b"before" + mark + b"after"))
    assert search.in_data(masked) == set()
    assert search.in_masked(masked) == {"prompt"}
    for form in (mark, base64.b64encode(mark), base64.urlsafe_b64encode(b"x" + mark), mark.hex().encode()):
        assert search.in_data(b".." + form + b"..") == {"prompt"}
        assert search.in_pieces([b".." + form[:7], form[7:9], form[9:] + b".."]) == {"prompt"}
