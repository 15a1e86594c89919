"""One bridge a home store, whatever happens to it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.store.errors import StoreInUseError
from cloudtolocalllm.bridge.store.lock import StoreLock, is_held, lock_path

HOLD = "from pathlib import Path; from cloudtolocalllm.bridge.store.lock import StoreLock; import sys\n"
HOLD += "StoreLock(Path(sys.argv[1])).acquire(); print('held', flush=True); sys.stdin.read()"


def test_the_second_is_refused_with_a_way_out(tmp_path: Path) -> None:
    store = tmp_path / "credential.home.db"
    first = StoreLock(store)
    assert not is_held(store)
    first.acquire()
    assert is_held(store)
    assert lock_path(store).stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreInUseError, match="another one that runs; stop it first"):
        StoreLock(store).acquire(wait=0.0)
    first.release()
    first.release()
    assert not is_held(store)
    second = StoreLock(store)
    second.acquire(wait=0.0)
    second.release()


def test_the_system_drops_it_with_a_process_that_is_killed(tmp_path: Path) -> None:
    store = tmp_path / "credential.home.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_held(store)
        with pytest.raises(StoreInUseError):
            StoreLock(store).acquire(wait=0.0)
        process.kill()
        process.wait(10)
    assert not is_held(store)


async def test_a_second_bridge_does_not_start_and_does_not_touch_the_store(tmp_path: Path) -> None:
    from cloudtolocalllm.bridge.service import Bridge
    from cloudtolocalllm.bridge.settings import BridgeSettings

    credential = tmp_path / "credential.json"
    now = time.time()
    BridgeIdentity("http://127.0.0.1:9", "br", "s", ProofKey.generate(), now, now + 1000).save(credential)
    settings = BridgeSettings(server="http://127.0.0.1:9", credential_file=credential, drain_grace=0.1)
    first = Bridge(settings)
    try:
        store = tmp_path / "credential.home.db"
        before = store.read_bytes()
        store.write_bytes(b"damaged")
        with pytest.raises(StoreInUseError):
            Bridge(settings)
        assert store.read_bytes() == b"damaged", "expected that it is not even looked at"
        store.write_bytes(before)
    finally:
        await first.close()
    again = Bridge(settings)
    await again.close()
