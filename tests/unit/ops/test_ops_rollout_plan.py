from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.ops.rollout_plan import SERVICES, Container, Wanted, faults, is_right, plan, read_service

WANTED = Wanted("sha256:new", "hash2", 3)


def container(
    name: str, *, new: bool = False, running: bool = True, health: str = "healthy", restart: str = "unless-stopped"
) -> Container:
    image, config = (WANTED.image, WANTED.config) if new else ("sha256:old", "hash1")
    return Container(name, name, image, config, running, health, restart)


OLD = [container(name) for name in ("a", "b", "c")]


def test_all_at_once_and_the_old_ones_go_last() -> None:
    todo = plan(OLD, WANTED)
    assert [(turn.start, [one.name for one in turn.retire]) for turn in todo.rounds] == [(3, ["a", "b", "c"])]


def test_one_at_a_time_where_memory_is_short() -> None:
    todo = plan(OLD, WANTED, at_a_time=1)
    assert [(turn.start, [one.name for one in turn.retire]) for turn in todo.rounds] == [
        (1, ["a"]),
        (1, ["b"]),
        (1, ["c"]),
    ]


def test_nothing_to_do_unless_forced() -> None:
    there = [container(name, new=True) for name in "abc"]
    assert plan(there, WANTED).rounds == ()
    (turn,) = plan(there, WANTED, force=True).rounds
    assert (turn.start, turn.retire) == (3, tuple(there))


@pytest.mark.parametrize("other", [replace(WANTED, image="sha256:x"), replace(WANTED, config="x")])
def test_another_image_and_other_settings_both_count(other: Wanted) -> None:
    assert plan([container(name, new=True) for name in "abc"], other).rounds[0].start == 3


def test_an_interrupted_rollout_goes_on_where_it_was() -> None:
    (turn,) = plan([*OLD, container("d", new=True)], WANTED).rounds
    assert (turn.start, len(turn.retire)) == (2, 3)
    (turn,) = plan([OLD[0], *(container(name, new=True) for name in "def")], WANTED).rounds
    assert (turn.start, turn.retire) == (0, (OLD[0],))


def test_as_many_as_somebody_scaled_it_to() -> None:
    (turn,) = plan([*OLD, container("d"), container("e")], WANTED).rounds
    assert turn.start == 5


def test_what_does_not_run_is_cleared_and_what_drains_is_left() -> None:
    gone, leaving = container("x", running=False), container("y", restart="no")
    todo = plan([gone, leaving, *OLD], WANTED)
    assert (todo.clear, todo.draining) == ((gone,), (leaving,))
    assert (todo.rounds[0].start, todo.rounds[0].retire) == (3, tuple(OLD))


def test_those_that_serve_nobody_go_first() -> None:
    ill = container("z", health="unhealthy")
    assert plan([*OLD, ill], WANTED, at_a_time=1).rounds[0].retire == (ill,)


containers = st.lists(
    st.builds(
        container,
        st.uuids().map(str),
        new=st.booleans(),
        running=st.booleans(),
        health=st.sampled_from(["healthy", "unhealthy", "starting"]),
        restart=st.sampled_from(["unless-stopped", "no"]),
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(containers, st.integers(1, 5), st.booleans(), st.none() | st.integers(1, 4))
def test_never_fewer_than_there_were_and_right_at_the_end(
    found: list[Container], replicas: int, force: bool, at_a_time: int | None
) -> None:
    wanted = replace(WANTED, replicas=replicas)
    todo = plan(found, wanted, force=force, at_a_time=at_a_time)
    there = {one.id: one for one in found if one.running and not one.retired}
    start = len(there)
    anything_new = not force and any(wanted.has(one) for one in there.values())
    for number, turn in enumerate(todo.rounds):
        assert turn.start <= (at_a_time or 100)
        for i in range(turn.start):
            made = container(f"new-{number}-{i}", new=True)
            there[made.id] = made
        for one in turn.retire:
            del there[one.id]  # each once, and only what serves
        assert len(there) >= min(start, replicas if anything_new else start)
    if todo.rounds or not force:
        assert all(wanted.has(one) for one in there.values())
    if not anything_new:
        assert len(there) == (start or replicas)
    assert set(todo.clear) == {one for one in found if not one.running}


def test_what_forbids_a_rollout() -> None:
    assert faults(OLD, "sha256:new") == []
    assert "build or pull it first" in faults(OLD, "")[0]
    ill = [*OLD, container("d", health="unhealthy")]
    assert "got d" in faults(ill, "sha256:new")[0]
    assert faults(ill, "sha256:new", force=True) == []
    assert faults([*OLD, container("d", health="unhealthy", restart="no")], "sha256:new") == []


def test_what_is_right() -> None:
    there = [container(name, new=True) for name in "abc"]
    assert is_right(there, WANTED, 3)
    assert is_right([*there, container("d", restart="no")], WANTED, 3)
    assert not is_right(there, WANTED, 2)
    assert not is_right([*there[:2], OLD[0]], WANTED, 3)
    assert not is_right([*there[:2], container("d", new=True, health="starting")], WANTED, 3)


V1 = """\
networks:
  api:
    internal: true
services:
  api-backend:
    build:
      context: /srv/c2l
    deploy:
      replicas: 3
    environment:
      C2L_X: 'image: nonsense'
    image: cloudtolocalllm/api-backend:1.2
  web-app:
    command:
    - --image
    image: "cloudtolocalllm/web-app:1.2"
version: '3'
"""
V2 = """\
name: cloudtolocalllm
services:
  api-backend:
    deploy:
      replicas: 5
      resources: {}
    image: registry.example:5000/c2l/api-backend@sha256:aa
"""


def test_what_compose_prints_is_read() -> None:
    assert read_service(V1, "api-backend") == ("cloudtolocalllm/api-backend:1.2", 3)
    assert read_service(V1, "web-app") == ("cloudtolocalllm/web-app:1.2", 1)
    assert read_service(V2, "api-backend") == ("registry.example:5000/c2l/api-backend@sha256:aa", 5)
    with pytest.raises(ValueError, match="expected the Compose file to have a service redis"):
        read_service(V1, "redis")


def test_who_is_asked_goes_before_who_asks() -> None:
    order = list(SERVICES)
    assert order.index("streaming-proxy-manager") < order.index("api-backend") < order.index("nginx-proxy")
