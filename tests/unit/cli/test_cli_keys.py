import asyncio
import stat
from pathlib import Path

import pytest

from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.revocations import GROUP, Revocations, key_member
from cloudtolocalllm.api.secrets import load_pseudonym_key, load_signing_ring
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.auth.keys import DAY, KeyScope, KeyVerifier
from cloudtolocalllm.auth.pseudonyms import owner_of
from cloudtolocalllm.bridge.keys import KeyList, key_list_path
from cloudtolocalllm.cli.keys import owner_key
from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.cli.main import main
from cloudtolocalllm.runtime.clock import SystemClock

LIMITS = ["--days", "7", "--route", "/v1/", "--route", "/ollama/api/chat", "--model", "tiny", "--model", "qwen*"]
LIMITS += ["--rpm", "5", "--tokens-per-day", "1000", "--bridge", "k2qxv7hd4m3a"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    layout.make()
    return layout


def run(layout: Layout, *arguments: str) -> int:
    return main(["keys", *arguments, "--data-dir", str(layout.root)])


def owner(layout: Layout) -> str:
    return owner_of(load_pseudonym_key(layout.secrets))


def revoked_in_cloud(layout: Layout) -> list[str]:
    async def members() -> list[str]:
        state = SqliteState(layout.state, clock=SystemClock())
        try:
            return list((await state.members(GROUP))[0])
        finally:
            await state.close()

    return asyncio.run(members())


def test_a_key_carries_what_was_asked_for(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(layout, "create", "--name", "Phone", *LIMITS) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    claims = KeyVerifier(load_signing_ring(layout.secrets), SystemClock()).verify(text.strip())
    assert claims is not None
    assert claims.user == owner(layout)
    assert claims.expires - claims.issued == 7 * DAY
    assert claims.scope == KeyScope(("/v1/", "/ollama/api/chat"), ("tiny", "qwen*"), 5, 1000, "k2qxv7hd4m3a")
    assert run(layout, "list") == 0
    (line,) = capsys.readouterr().out.splitlines()
    for part in (claims.id, "Phone", "never used", "/v1/; /ollama/api/chat; tiny; qwen*; 5 requests/min",
                 "0 of 1000 tokens today; bridge k2qxv7hd4m3a"):  # fmt: skip
        assert part in line
    assert text.strip() not in line


def test_without_options_a_key_has_no_limits_and_ninety_days(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(layout, "create") == 0
    claims = KeyVerifier(load_signing_ring(layout.secrets), SystemClock()).verify(capsys.readouterr().out.strip())
    assert claims is not None
    assert (claims.scope, claims.expires - claims.issued) == (KeyScope(), 90 * DAY)


@pytest.mark.parametrize(
    "arguments",
    [["--route", "/api/"], ["--model", "[a]"], ["--rpm", "0"], ["--tokens-per-day", "-1"], ["--bridge", "a b"]],
)
def test_a_scope_that_is_none_is_explained(
    layout: Layout, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(layout, "create", *arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "expected " in said.err
    run(layout, "list")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("days", ["0", "367", "-1", "1.5", "many"])
def test_a_lifetime_out_of_bounds_is_a_wrong_command_line(layout: Layout, days: str) -> None:
    with pytest.raises(SystemExit):
        run(layout, "create", "--days", days)


def test_a_revoked_key_is_so_at_home_and_in_the_cloud(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    run(layout, "create", "Phone")
    key_id = capsys.readouterr().err.split()[1]
    assert run(layout, "revoke", key_id) == 0
    assert revoked_in_cloud(layout) == [key_member(owner(layout), key_id)]
    keys = KeyList(key_list_path(layout.bridge_credential), SystemClock())
    key = keys.find(key_id)
    keys.close()
    assert key is not None
    assert key.revoked is not None
    run(layout, "list")
    assert "revoked" in capsys.readouterr().out
    assert run(layout, "revoke", "nobody") == 1
    assert "keys list" in capsys.readouterr().err


def test_what_failed_in_the_cloud_is_repeated_there(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(layout, "create", "Phone")
    key_id = capsys.readouterr().err.split()[1]
    monkeypatch.setenv("C2L_API_STATE", "nowhere://")
    assert run(layout, "revoke", key_id) == 1
    assert "revoked at home" in capsys.readouterr().err
    monkeypatch.delenv("C2L_API_STATE")
    assert revoked_in_cloud(layout) == []
    assert run(layout, "revoke", key_id) == 0
    assert revoked_in_cloud(layout) == [key_member(owner(layout), key_id)]


async def test_a_running_cloud_is_told_to_look(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(run, layout, "create", "Phone")
    key_id = capsys.readouterr().err.split()[1]
    user = owner(layout)
    state = SqliteState(layout.state, clock=SystemClock())
    try:
        running = Revocations(state, LocalBus(), SystemClock())
        await running.load()
        await asyncio.to_thread(run, layout, "revoke", key_id)
        assert not running.holds(key_member(user, key_id))
        await running.look()
        assert running.holds(key_member(user, key_id))
    finally:
        await state.close()


def test_the_owners_key_is_listed_kept_and_made_anew_when_it_was_revoked(layout: Layout) -> None:
    clock, ring = SystemClock(), load_signing_ring(layout.secrets)
    first = owner_key(layout, ring, owner(layout), clock)
    assert owner_key(layout, ring, owner(layout), clock) == first
    assert stat.S_IMODE(layout.owner_key.stat().st_mode) == 0o600
    claims = KeyVerifier(ring, clock).verify(first)
    assert claims is not None
    assert run(layout, "revoke", claims.id) == 0
    second = owner_key(layout, ring, owner(layout), clock)
    assert second != first
    assert KeyVerifier(ring, clock).verify(second) is not None
    assert owner_key(layout, ring, "u_another", clock) != second


def test_a_spoilt_list_is_explained_and_kept(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    path = key_list_path(layout.bridge_credential)
    path.write_bytes(b"no database" * 100)
    for arguments in (["list"], ["create"], ["revoke", "x"]):
        assert run(layout, *arguments) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert "restore it from a backup" in said.err
    assert path.read_bytes() == b"no database" * 100
