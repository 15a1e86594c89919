"""nginx's configuration as text: what it takes from the settings, and what no setting can put into it."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.nginx_server import MODULES, nginx_path, require_nginx

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.clients import parse_networks
from cloudtolocalllm.edge.headers import SECURITY
from cloudtolocalllm.edge.limits import Rate
from cloudtolocalllm.edge.nginx.checked import Found
from cloudtolocalllm.edge.nginx.render import CONFIGURATION, IN_USE, render
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import make_placeholder
from cloudtolocalllm.edge.nginx.text import RenderError
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import SystemClock

EDGE = EdgeSettings(api=(Endpoint(path="/run/c2l/api.sock"), Endpoint(host="api-backend", port=8000)))
NGINX = NginxSettings()
HOSTILE = [
    'a"b',
    "a;b",
    "a\nb",
    "a\r\nb",
    "a$uri",
    "a{b",
    "a}b",
    "a#b",
    "a b",
    "a'b",
    "a\\",
    "a\0b",
    "a\u2028b",
    "é",
    "a;}http{server{listen 1;}}",
]
Build = dict[str, Any]


def configuration(edge: EdgeSettings = EDGE, nginx: NginxSettings = NGINX) -> str:
    return render(edge, nginx)[CONFIGURATION]


def script(edge: EdgeSettings = EDGE, nginx: NginxSettings = NGINX) -> dict[str, Any]:
    text = render(edge, nginx)["settings.json"]
    value: dict[str, Any] = json.loads(text)
    return value


TEXTS_OF_EDGE: list[tuple[str, Any]] = [
    ("domain", lambda text: text),
    ("listen_host", lambda text: text),
    ("allowed_hosts", lambda text: ("fine.example", text)),
    ("web_root", lambda text: Path("/srv") / text),
    ("api", lambda text: (Endpoint(path=f"/run/{text}"),)),
    ("api", lambda text: (Endpoint(host=text, port=80),)),
]
TEXTS_OF_NGINX: list[tuple[str, Any]] = [
    ("acme_root", lambda text: Path("/var") / text),
    ("site_root", lambda text: Path("/srv") / text),
    ("web", lambda text: Endpoint(host=text, port=80)),
    ("state_dir", lambda text: Path("/run") / text),
    ("access_log", lambda text: Path("/var") / text),
    ("modules_dir", lambda text: Path("/usr") / text),
    ("user", lambda text: text),
    ("resolver", lambda text: text),
    ("error_log_level", lambda text: text),
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    ("name", "make"), TEXTS_OF_EDGE, ids=[f"{n}-{name}" for n, (name, _) in enumerate(TEXTS_OF_EDGE)]
)
def test_no_text_of_the_edges_settings_ends_its_directive(name: str, make: Any, text: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(replace(EDGE, **{name: make(text)}), NGINX)
    assert f"C2L_EDGE_{name.upper()}: expected" in str(caught.value)
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(("name", "make"), TEXTS_OF_NGINX, ids=[name for name, _ in TEXTS_OF_NGINX])
def test_no_text_of_nginxs_settings_ends_its_directive(name: str, make: Any, text: str) -> None:
    if name == "resolver" and text == "a b":
        return  # two servers
    with pytest.raises(RenderError) as caught:
        render(EDGE, replace(NGINX, **{name: make(text)}))
    assert f"C2L_NGINX_{name.upper()}: expected" in str(caught.value)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", -1), ("workers", "2; user root"), ("connections", 1), ("tls_port", 0), ("public_tls_port", 65536)],
)
def test_numbers_are_numbers_within_bounds(name: str, value: Any) -> None:
    with pytest.raises(RenderError, match=f"C2L_NGINX_{name.upper()}: expected a whole number from"):
        render(EDGE, replace(NGINX, **{name: value}))


def test_all_faults_are_told_together() -> None:
    with pytest.raises(RenderError) as caught:
        render(replace(EDGE, domain="a b", listen_port=-1), replace(NGINX, user="root;"))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        *("C2L_EDGE_DOMAIN", "C2L_EDGE_ALLOWED_HOSTS", "C2L_EDGE_LISTEN_PORT", "C2L_NGINX_USER")
    ]


def test_paths_do_not_climb_and_sockets_fit() -> None:
    for state in ("/run/../etc", "/run/" + "a" * 90, "run"):
        with pytest.raises(RenderError, match="C2L_NGINX_STATE_DIR"):
            render(EDGE, replace(NGINX, state_dir=Path(state)))


@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=3))
@settings(max_examples=60, deadline=None)
def test_what_only_the_script_sees_is_data_there(key: str, origins: list[str]) -> None:
    edge = replace(EDGE, cors_origins=tuple(origins))
    files = render(edge, NGINX, key=key)
    text = files["settings.json"]
    assert text.isascii()
    value = json.loads(text)
    assert (list(value["corsOrigins"]), value["table"]["key"]) == (sorted(set(origins)), key)
    assert files[CONFIGURATION] == configuration()


def test_rendering_is_repeatable() -> None:
    assert render(EDGE, NGINX) == render(EDGE, NGINX)


# --- what it says ---


def test_every_location_is_closed_to_clients() -> None:
    text = configuration()
    heads = re.findall(r"location = (/\S+) \{\n\s+(\S+)", text)
    assert len(heads) > 30
    assert [head for head, first in heads if first != "internal;"] == []
    assert [head for head, _ in heads if not head.startswith("/_c2l/")] == []


def test_security_fields_stand_in_each_block_that_adds_fields() -> None:
    # add_header of a block replaces those of the blocks around it, so each has to repeat them.
    blocks = re.findall(r"location [^{]*\{[^{}]*\}", configuration())
    adding = [block for block in blocks if "add_header" in block]
    assert len(adding) > 20
    for name, _ in SECURITY:
        if name != b"server":
            assert [block[:40] for block in adding if f"add_header {name.decode()} " not in block] == []


def test_replicas_share_the_least_connected_and_what_is_lost_is_left_out() -> None:
    upstream = re.search(r"upstream c2l_api \{.*?\n    \}", configuration(), re.DOTALL)
    assert upstream is not None
    assert "least_conn;" in upstream[0]
    assert "server unix:/run/c2l/api.sock max_fails=1 fail_timeout=4s;" in upstream[0]
    assert "server api-backend:8000 max_fails=1 fail_timeout=4s;" in upstream[0]
    assert "non_idempotent" not in configuration()


def test_the_log_has_no_target_and_no_address() -> None:
    text = configuration()
    (log,) = re.findall(r"log_format .*", text)
    for variable in ("request", "request_uri", "uri", "args", "query_string", "remote_addr", "http_referer"):
        assert f"${variable}" not in re.findall(r"\$\w+", log)
    assert "error_log stderr alert;" in text


def test_tls_is_mozillas_intermediate() -> None:
    text = configuration(
        replace(EDGE, domain="llm.example"), replace(NGINX, certificate_dir=Path("/etc/c2l/certs/x"))
    )
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in text
    (ciphers,) = re.findall(r"ssl_ciphers (.*);", text)
    assert all(re.fullmatch(r"ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305)", c)
               for c in ciphers.split(":"))  # fmt: skip
    assert "ssl_session_tickets off;" in text
    assert 'add_header strict-transport-security "max-age=31536000; includeSubDomains" always;' in text
    assert "server_name app.llm.example llm.example;" in text
    assert "return 308 https://$host$request_uri;" in text
    assert "strict-transport-security" not in configuration()


@pytest.mark.parametrize("counted", [0, 256])
def test_the_kernel_keeps_little_for_who_does_not_read(counted: int) -> None:
    edge = replace(EDGE, domain="llm.example", limit_connections=counted)
    text = configuration(edge, replace(NGINX, certificate_dir=Path("/etc/c2l/certs/x")))
    listening = [line.strip() for line in text.splitlines() if line.strip().startswith("listen ")]
    for address in {line.split()[1].rstrip(";") for line in listening if "unix:" not in line}:
        of_it = [line for line in listening if line.split()[1].rstrip(";") == address]
        assert sum("sndbuf=128k" in line for line in of_it) == 1, of_it  # nginx refuses to be told twice
    assert any("sndbuf=128k" in line for line in listening)


def test_the_script_knows_the_settings() -> None:
    edge = replace(
        EDGE,
        domain="LLM.example",
        allowed_hosts=("Other.example",),
        trusted_proxies=parse_networks("10.0.0.0/8, 2001:db8::/32"),
        limit_api=Rate(60, "min", 5),
        limit_data=None,
    )
    value = script(edge)
    assert list(value["hosts"]) == ["app.llm.example", "llm.example", "other.example"]
    assert value["trusted"] == [
        {"words": [2560, 0], "bits": 8},
        {"words": [0x2001, 0xDB8, 0, 0, 0, 0, 0, 0], "bits": 32},
    ]
    assert value["rates"]["api"] == {
        "count": 60,
        "window": 60,
        "burst": 5,
        "interval": 1000,
        "text": "60/min burst 5",
    }
    assert "data" not in value["rates"]
    assert value["exemptsLoopback"] is False
    assert script()["exemptsLoopback"] is True


def test_without_limits_of_connections_there_is_no_front() -> None:
    assert "\nstream {" in configuration()
    assert "\nstream {" not in configuration(replace(EDGE, limit_connections=0))


HANDED = tuple(Endpoint(host=host, port=port) for port in (8080, 443, 9) for host in ("0.0.0.0", "::"))


def listens(text: str) -> list[str]:
    return [line for line in re.findall(r"^\s+listen ([^ ;]+)", text, re.MULTILINE) if not line.startswith("unix:")]


@pytest.mark.parametrize("connections", [0, 256])
def test_it_listens_where_its_sockets_do(connections: int) -> None:
    edge = replace(EDGE, limit_connections=connections)
    tls = replace(NGINX, certificate_dir=Path("/etc/certs"))

    def found(nginx: NginxSettings, *endpoints: Endpoint) -> set[str]:
        return set(listens(render(edge, nginx, found=Found(listening=endpoints))[CONFIGURATION]))

    assert found(tls, *HANDED) == {"0.0.0.0:8080", "[::]:8080", "0.0.0.0:443", "[::]:443"}
    assert found(NGINX, *HANDED) == {"0.0.0.0:8080", "[::]:8080"}
    assert set(listens(configuration(edge, tls))) == {"127.0.0.1:8080", "127.0.0.1:443"}
    with pytest.raises(RenderError, match="C2L_NGINX_PORTS: expected a socket at port 443"):
        found(tls, *HANDED[:2])


@pytest.mark.parametrize("connections", [0, 256])
def test_at_the_end_it_accepts_nothing_from_outside(connections: int) -> None:
    tls = replace(NGINX, certificate_dir=Path("/etc/certs"))
    files = render(replace(EDGE, limit_connections=connections), tls, found=Found(listening=()))
    text = files[CONFIGURATION]
    assert listens(text) == []
    servers = re.findall(r"^ *server \{\n +(\S+)", text, re.MULTILINE)
    assert set(servers) == {"listen"}  # one without would get an address of nginx's own choice


def test_names_are_replaced_by_the_addresses_that_are_known() -> None:
    nginx = replace(NGINX, web=Endpoint(host="web-app", port=80))
    known = {"api-backend": ("172.20.16.2", "2001:db8::2")}
    text = render(EDGE, nginx, found=Found(addresses=known))[CONFIGURATION]
    api, web = (text.split(f"upstream c2l_{name} {{")[1].split("}")[0] for name in ("api", "web"))
    assert re.findall("server (\\S+)", api) == [*("unix:/run/c2l/api.sock", "172.20.16.2:8000", "[2001:db8::2]:8000")]
    assert re.findall("server (\\S+)", web) == ["unix:/run/c2l/nginx/nobody"]
    assert "default c2l_api;" in text
    with pytest.raises(RenderError, match="C2L_EDGE_API"):
        render(EDGE, NGINX, found=Found(addresses={"api-backend": ("1.2.3.4;",)}))


def test_a_name_can_be_looked_up_at_each_request() -> None:
    edge = replace(EDGE, api=EDGE.api[1:])
    text = render(edge, NGINX, found=Found(addresses={}, ask_each_time=True))[CONFIGURATION]
    assert "default api-backend:8000;" in text
    assert text.count("proxy_pass http://$c2l_api") == 3


@pytest.mark.nginx
@pytest.mark.parametrize("found", [Found(), Found(addresses={}, listening=HANDED[:2]), Found(listening=())])
@pytest.mark.parametrize("connections", [0, 256])
@pytest.mark.parametrize("tls", [False, True])
def test_nginx_takes_it(tmp_path: Path, tls: bool, connections: int, found: Found) -> None:
    require_nginx()
    edge = replace(EDGE, api=EDGE.api[:1], domain="llm.example", allowed_hosts=("[2001:db8::7]", "192.0.2.7"),
                   listen_host="::1", web_root=tmp_path, limit_connections=connections)  # fmt: skip
    nginx = replace(
        NGINX, state_dir=tmp_path, modules_dir=MODULES, resolver="127.0.0.11 [::1]:53", site_root=tmp_path
    )
    if tls:
        make_placeholder(tmp_path / IN_USE, "llm.example", SystemClock())
        nginx = replace(nginx, certificate_dir=tmp_path / "tls", public_tls_port=8443)
        if found.listening:
            found = replace(found, listening=HANDED)
    for name, text in render(edge, nginx, found=found).items():
        (tmp_path / name).write_text(text)
    program = nginx_path()
    assert program is not None
    command = [program, "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / CONFIGURATION)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr
