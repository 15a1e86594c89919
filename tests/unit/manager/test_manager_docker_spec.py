"""What the engine would be asked for, without any engine."""

import json
import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.base import InstanceSpec
from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.manager.drivers.docker.records import Records
from cloudtolocalllm.manager.drivers.docker.spec import ContainerLimits, DockerConfig, Isolation
from cloudtolocalllm.manager.settings import PREFIX, ManagerSettings
from cloudtolocalllm.runtime.settings import SettingsError, load

SPEC = InstanceSpec("px-0123456789abcdef", "someone", "ab" * 32, 1_700_000_000.5)
CONFIG = DockerConfig(Path("/run/c2l"), limits=ContainerLimits(memory=1 << 26, cpus=0.25, pids=9, open_files=77))
SUBNET = IPv4Network("10.213.0.16/28")
IMAGE = "sha256:" + "0" * 64


def body(spec: InstanceSpec = SPEC, *, subnet: IPv4Network | None = None) -> dict[str, object]:
    return specs.container(CONFIG, "m1", spec, image=IMAGE, sockets="/host/proxies", subnet=subnet)


def host_config(made: dict[str, object]) -> dict[str, object]:
    config = made["HostConfig"]
    assert isinstance(config, dict)
    return config


@pytest.mark.parametrize("subnet", [None, SUBNET])
def test_a_container_may_do_nothing_that_a_proxy_does_not_need(subnet: IPv4Network | None) -> None:
    made = body(subnet=subnet)
    config = host_config(made)
    assert config["CapDrop"] == ["ALL"]
    assert "CapAdd" not in config
    assert config["SecurityOpt"] == ["no-new-privileges:true"]  # no seccomp=unconfined: the default filter stays
    assert config["ReadonlyRootfs"] is True
    assert config["Privileged"] is False
    assert config["Memory"] == config["MemorySwap"] == 1 << 26
    assert (config["CpuQuota"], config["CpuPeriod"]) == (100_000, 400_000)
    assert config["PidsLimit"] == 9
    assert config["Init"] is True
    assert config["IpcMode"] == "none"
    assert config["RestartPolicy"] == {"Name": "no"}
    assert all("noexec" in str(options) for options in config["Tmpfs"].values())  # type: ignore[attr-defined] # JSON
    limits = {one["Name"]: (one["Soft"], one["Hard"]) for one in config["Ulimits"]}  # type: ignore[attr-defined] # JSON
    assert limits == {"core": (0, 0), "nofile": (77, 77), "fsize": (0, 0)}
    assert made["User"] == "10010:10010"
    assert made["Image"] == IMAGE
    assert made["Healthcheck"] == {"Test": ["NONE"]}
    assert not {"PortBindings", "Binds", "Devices", "VolumesFrom", "PidMode", "UTSMode"} & set(config)


def test_without_a_network_only_its_own_folder_is_shared() -> None:
    made = body()
    config = host_config(made)
    assert made["NetworkDisabled"] is True
    assert config["NetworkMode"] == "none"
    mounts = config["Mounts"]
    assert isinstance(mounts, list)
    (mount,) = mounts
    assert mount["Source"] == "/host/proxies/px-0123456789abcdef"
    assert mount["Target"] == "/run/c2l"
    assert specs.endpoint_of(CONFIG, SPEC.id, None) == Endpoint(path="/run/c2l/proxies/px-0123456789abcdef/http.sock")


def test_with_a_network_it_is_internal_and_nobody_elses() -> None:
    made = body(subnet=SUBNET)
    config = host_config(made)
    assert config["NetworkMode"] == "c2l-net-px-0123456789abcdef"
    assert config["Dns"] == ["127.0.0.1"]
    assert "Mounts" not in config
    network = specs.network("m1", SPEC, SUBNET)
    assert network["Internal"] is True
    assert network["Options"]["com.docker.network.bridge.inhibit_ipv4"] == "true"
    assert network["IPAM"]["Config"] == [{"Subnet": "10.213.0.16/28", "Gateway": "10.213.0.17"}]
    assert specs.endpoint_of(CONFIG, SPEC.id, SUBNET) == Endpoint(host="10.213.0.30", port=8080)


@pytest.mark.parametrize("subnet", [None, SUBNET])
def test_the_key_is_in_no_request_and_the_user_in_one_label_alone(subnet: IPv4Network | None) -> None:
    made = body(subnet=subnet)
    assert SPEC.key not in json.dumps([made, specs.network("m1", SPEC, SUBNET)])
    labels = made["Labels"]
    assert isinstance(labels, dict)
    assert labels.pop(specs.USER) == "someone"
    assert labels == {
        specs.MANAGED_BY: "m1",
        specs.INSTANCE: SPEC.id,
    }
    assert "someone" not in json.dumps(made)


@settings(max_examples=150, deadline=None)
@given(
    user=st.one_of(st.none(), st.text(max_size=80), st.sampled_from(["../..", "a b", "$(x)", "a\nb", "x" * 65, ""])),
    instance=st.one_of(st.just(SPEC.id), st.text(max_size=30), st.sampled_from(["px-../../etc", SPEC.id + "\n"])),
    key=st.one_of(st.just(SPEC.key), st.text(max_size=70)),
)
def test_whatever_comes_in_is_refused_or_harmless(user: str | None, instance: str, key: str) -> None:
    spec = InstanceSpec(instance, user, key, 1.0)
    if instance != SPEC.id or key != SPEC.key or (user is not None and not re.fullmatch("[A-Za-z0-9_-]{1,64}", user)):
        with pytest.raises(ValueError, match=r"^expected (an instance id|a user|a key) of "):
            body(spec)
        with pytest.raises(ValueError, match=r"^expected (an instance id|a user|a key) of "):
            specs.network("m1", spec, SUBNET)
        return
    made = body(spec)
    network = specs.network("m1", spec, SUBNET)
    for labels in (made["Labels"], network["Labels"]):
        assert isinstance(labels, dict)
        assert labels.pop(specs.USER, None) == user
    marked = body(InstanceSpec(instance, "Zz-Zz" if user else None, key, 1.0))
    assert isinstance(marked["Labels"], dict)
    marked["Labels"].pop(specs.USER, None)
    assert made == marked  # but for its label, a user makes no difference


def test_subnets_do_not_overlap_and_stay_in_their_pool() -> None:
    pool = IPv4Network("10.1.0.0/22")
    count = specs.subnets(pool)
    assert count == 64
    every = [specs.subnet(pool, number) for number in range(count)]
    assert len(set(every)) == count
    assert all(one.subnet_of(pool) and one.prefixlen == 28 for one in every)


def test_a_record_survives_and_a_broken_one_is_none(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.identity() == Records(tmp_path).identity()
    records.write(SPEC)
    assert records.read(SPEC.id) == SPEC
    assert records.ids() == {SPEC.id}
    assert (tmp_path / f"{SPEC.id}.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / f"{SPEC.id}.json").write_text("{")
    assert records.read(SPEC.id) is None
    (tmp_path / f"{SPEC.id}.json").write_text(
        json.dumps({"id": SPEC.id, "user": "a/b", "key": SPEC.key, "created": 1})
    )
    assert records.read(SPEC.id) is None
    records.remove(SPEC.id)
    records.remove(SPEC.id)
    assert records.ids() == set()


def test_settings_of_containers_are_read_and_bad_ones_told() -> None:
    environ = {
        PREFIX + "SERVICE_KEYS": "/k",
        PREFIX + "RUN_DIR": "/run/c2l",
        PREFIX + "LISTEN": "unix:/run/c2l/manager.sock",
        PREFIX + "DRIVER": "docker",
        PREFIX + "ISOLATION": "network",
        PREFIX + "ATTACH": "nginx-proxy, c2l/streaming-proxy-manager",
        PREFIX + "SUBNETS": "10.9.0.0/20",
        PREFIX + "CONTAINER_CPUS": "0.3",
    }
    config = load(ManagerSettings, PREFIX, environ).containers()
    assert config.isolation is Isolation.NETWORK
    assert config.attach == ("nginx-proxy", "c2l/streaming-proxy-manager")
    assert specs.subnets(config.subnets) == 256
    assert config.limits.cpus == 0.3
    bad = {
        "ISOLATION": "hope",
        "ATTACH": "a/b/c",
        "SUBNETS": "10.9.0.0/29",
        "CONTAINER_CPUS": "none",
        "IMAGE": "../../x",
        "DOCKER": "ftp://x",
        "SOCKETS": "-x",
    }
    with pytest.raises(SettingsError) as caught:
        load(ManagerSettings, PREFIX, {**environ, **{PREFIX + name: value for name, value in bad.items()}})
    assert str(caught.value).count("expected") == len(bad)


def test_whom_a_word_of_attach_means() -> None:
    mine = {specs.COMPOSE_PROJECT: "c2l", specs.COMPOSE_SERVICE: "nginx-proxy"}
    assert specs.is_meant("nginx", "nginx", {})
    assert not specs.is_meant("nginx", "nginx2", mine)
    assert specs.filters_of("nginx.1") == {"name": ["^/nginx\\.1$"]}
    for name in ("c2l_nginx-proxy_1", "c2l-nginx-proxy-2"):
        assert specs.is_meant("c2l/nginx-proxy", name, mine)
    for wrong in ({}, {**mine, specs.COMPOSE_PROJECT: "other"}, {**mine, specs.COMPOSE_SERVICE: "web-app"}):
        assert not specs.is_meant("c2l/nginx-proxy", "c2l_nginx-proxy_1", wrong)
    labels = [f"{specs.COMPOSE_PROJECT}=c2l", f"{specs.COMPOSE_SERVICE}=nginx-proxy"]
    assert specs.filters_of("c2l/nginx-proxy") == {"label": labels}


def test_paths_must_be_absolute_and_short_enough_for_sockets() -> None:
    specs.check_paths(DockerConfig(Path("/" + "a" * 68)))
    with pytest.raises(ValueError, match="at most 107 bytes, got 108"):
        specs.check_paths(DockerConfig(Path("/" + "a" * 69)))
    with pytest.raises(ValueError, match="expected an absolute path"):
        specs.check_paths(DockerConfig(Path("run")))
