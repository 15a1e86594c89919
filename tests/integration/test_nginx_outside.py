import socket
from pathlib import Path

import pytest

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.nginx import outside
from cloudtolocalllm.edge.nginx.outside import Outside, look

REPLICAS = ("127.0.0.2", "127.0.0.3")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to two replicas, as an engine's resolver has it from their start on."""
    asked = outside._addresses

    async def addresses(name: str) -> tuple[str, ...]:
        return REPLICAS if name == "api-backend" else await asked(name)

    monkeypatch.setattr(outside, "_addresses", addresses)


@pytest.mark.usefixtures("names")
async def test_a_replica_is_taken_in_once_it_listens_and_stays_until_its_address_is_gone(tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two:
        one.bind((REPLICAS[0], 0))
        port = one.getsockname()[1]
        two.bind((REPLICAS[1], port))
        upstreams = (Endpoint(host="api-backend", port=port), Endpoint(path=str(tmp_path / "api.sock")))
        seen = await look(tmp_path, upstreams, Outside())
        assert seen.addresses == {"api-backend": ()}
        one.listen()
        seen = await look(tmp_path, upstreams, seen)
        assert seen.addresses == {"api-backend": REPLICAS[:1]}
        two.listen()
        seen = await look(tmp_path, upstreams, seen)
        assert seen.addresses == {"api-backend": REPLICAS}
    # One that ends is nginx's to avoid: its address goes in a moment, and a change of the group costs a worker.
    assert (await look(tmp_path, upstreams, seen)).addresses == {"api-backend": REPLICAS}
    assert (await look(tmp_path, upstreams, Outside())).addresses == {"api-backend": ()}


async def test_an_address_is_taken_as_it_is(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        upstream = Endpoint(host="127.0.0.1", port=unused.getsockname()[1])
        assert (await look(tmp_path, (upstream,), Outside())).addresses == {"127.0.0.1": ("127.0.0.1",)}
