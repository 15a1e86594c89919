"""What the process driver would ask and write, without any process."""

import json
from pathlib import Path

import pytest

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.base import InstanceSpec
from cloudtolocalllm.manager.drivers.process_spec import (
    ProcessConfig,
    Record,
    check_run_dir,
    endpoint_of,
    spawn_request,
)
from cloudtolocalllm.manager.settings import FORKSERVER, PREFIX, ManagerSettings
from cloudtolocalllm.runtime.forkserver import ChildLimits, SpawnRequest, scrubbed_environment
from cloudtolocalllm.runtime.settings import SettingsError, load

SPEC = InstanceSpec("px-0123456789abcdef", "someone", "ab" * 32, 1_700_000_000.5)
CONFIG = ProcessConfig(Path("/run/c2l"), ("forkserver",), ChildLimits(open_files=99), drain=3.0, orphan_timeout=120.0)


def test_request_carries_what_the_proxy_needs_and_nothing_of_the_user() -> None:
    request = spawn_request(SPEC, CONFIG)
    assert request.args == {
        "instance": SPEC.id,
        "key": SPEC.key,
        "listen": "unix:/run/c2l/proxies/px-0123456789abcdef/http.sock",
        "drain": 3.0,
        "orphan_timeout": 120.0,
    }
    assert "someone" not in json.dumps(request.args)
    assert request.record_path == "/run/c2l/proxies/px-0123456789abcdef/instance.json"
    assert request.limits.open_files == 99


def test_request_survives_its_line() -> None:
    request = spawn_request(SPEC, CONFIG)
    line = request.to_line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert SpawnRequest.from_line(line) == request


def test_a_request_that_is_too_long_is_refused_here() -> None:
    long = SpawnRequest("px", {"x": "y" * 70_000}, ChildLimits(), "/r", {})
    with pytest.raises(ValueError, match="expected a spawn request of less than 65536 bytes, got"):
        long.to_line()


def test_record_survives_its_file() -> None:
    record = Record(SPEC, pid=42, started=777)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert set(record.to_json()) == {"id", "user", "key", "created", "pid", "started"}


@pytest.mark.parametrize(
    "change",
    [{"key": "zz"}, {"key": "ab"}, {"pid": "x"}, {"started": None}, {"created": "later"}],
)
def test_malformed_records_are_refused(change: dict[str, object]) -> None:
    value = {**Record(SPEC, 1, 2).to_json(), **change}
    with pytest.raises((ValueError, TypeError)):
        Record.from_json(value)


def test_run_folder_must_be_absolute_and_short_enough_for_socket_paths() -> None:
    longest = Path("/" + "a" * 68)
    check_run_dir(longest)
    assert len(str(endpoint_of(ProcessConfig(longest, ()), SPEC.id).path)) == 107
    with pytest.raises(ValueError, match="at most 107 bytes, got 108"):
        check_run_dir(Path("/" + "a" * 69))
    with pytest.raises(ValueError, match="expected an absolute path"):
        check_run_dir(Path("run"))


def test_environment_of_the_fork_server_holds_no_secret() -> None:
    assert scrubbed_environment({"TZ": "UTC", "AWS_SECRET": "x", "PATH": "/bin", "LANG": "C"}) == {
        "TZ": "UTC",
        "LANG": "C",
    }


def test_settings_are_read_and_all_faults_told_at_once() -> None:
    environ = {
        PREFIX + "SERVICE_KEYS": "/k",
        PREFIX + "RUN_DIR": "/run/c2l",
        PREFIX + "LISTEN": "unix:/run/c2l/manager.sock",
        PREFIX + "STOP_GRACE": "3",
    }
    settings = load(ManagerSettings, PREFIX, environ)
    assert settings.listen == Endpoint(path="/run/c2l/manager.sock")
    assert settings.process().forkserver == FORKSERVER
    assert settings.process().drain == 2.0
    assert settings.policy().idle_timeout == 600.0
    bad = {**environ, PREFIX + "WARM": "-1", PREFIX + "IDLE_TIMEOUT": "soon", PREFIX + "DRIVER": "magic"}
    with pytest.raises(SettingsError) as caught:
        load(ManagerSettings, PREFIX, bad)
    assert str(caught.value).count("expected") == 3
    assert "magic" not in str(caught.value)
