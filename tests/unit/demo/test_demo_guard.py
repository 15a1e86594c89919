import pytest

from cloudtolocalllm.demo.guard import host_allowed, origin_allowed


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:11434", "127.0.0.1:1", "[::1]:11434", "192.168.1.5", "nas.local", ""]
)
def test_hosts_of_this_machine_and_its_network_pass(host: str) -> None:
    assert host_allowed(host)


@pytest.mark.parametrize("host", ["example.com", "evil.example:11434", "8.8.8.8", "localhost.evil.example"])
def test_other_hosts_do_not(host: str) -> None:
    assert not host_allowed(host)


@pytest.mark.parametrize(
    "origin",
    [None, "http://localhost", "https://127.0.0.1:5173", "app://chat", "file://", "http://engine:11434"],
)
def test_local_origins_pass(origin: str | None) -> None:
    assert origin_allowed(origin, "engine:11434")


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://localhost.evil.example", ""])
def test_other_origins_do_not(origin: str) -> None:
    assert not origin_allowed(origin, "127.0.0.1:11434")
