"""What may be set, and certbot's command line from it."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.support.certs_parts import certs_settings

from cloudtolocalllm.certs import certbot, hints
from cloudtolocalllm.certs.certbot import Places
from cloudtolocalllm.certs.settings import PREFIX, PRODUCTION, STAGING, CertsSettings
from cloudtolocalllm.runtime.settings import SettingsError, load


def loaded(**variables: str) -> CertsSettings:
    given = {"DOMAINS": "example.org", **variables}
    return load(CertsSettings, PREFIX, {PREFIX + name: value for name, value in given.items()})


def test_the_names_are_put_in_order() -> None:
    found = loaded(DOMAINS=" Example.ORG., app.example.org,example.org ")
    assert found.domains == ("example.org", "app.example.org")
    assert found.folder_name == "example.org"
    assert loaded(DOMAINS="*.example.org", CHALLENGE="dns-01").folder_name == "example.org"


def test_the_authority() -> None:
    assert loaded().acme_server == PRODUCTION
    assert loaded(STAGING="true").acme_server == STAGING
    assert loaded(SERVER="https://ca.example.net/dir").acme_server == "https://ca.example.net/dir"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DOMAINS": ""}, "expected 1 to 100 names"),
        ({"DOMAINS": "a.b, c d"}, "expected names such as"),
        ({"DOMAINS": "-rf.example.org"}, "expected names such as"),
        ({"DOMAINS": "example.org/../x"}, "expected names such as"),
        ({"DOMAINS": "exämple.org"}, "expected names such as"),
        ({"DOMAINS": "a.*.example.org"}, "expected names such as"),
        ({"DOMAINS": "*.example.org"}, "a wildcard needs C2L_CERTS_CHALLENGE=dns-01"),
        ({"DOMAINS": "192.0.2.1"}, "no IP addresses in mode acme"),
        ({"DOMAINS": "localhost"}, "expected names with a dot"),
        ({"MODE": "magic"}, "expected acme, own or local-ca"),
        ({"MODE": "own"}, "C2L_CERTS_OWN_CERTIFICATE and C2L_CERTS_OWN_KEY"),
        ({"NAME": "../etc"}, "lower-case letters"),
        ({"SERVER": "http://ca.example.net/dir"}, "expected an https:// URL"),
        ({"SERVER": "https://ca.example.net/dir", "STAGING": "1"}, "not both"),
        ({"DNS_PROVIDER": "--config"}, "expected a plugin's name"),
        ({"EMAIL": "-x@example.org"}, "expected an address"),
        ({"EAB_KID": "kid"}, "belong together"),
        ({"WEBROOT_URL": "file:///etc"}, "expected an http:// URL"),
        ({"POLL": "0"}, "expected C2L_CERTS_POLL over 0"),
    ],
)
def test_what_is_refused(variables: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(**variables)
    assert words in str(caught.value)


def test_empty_paths_count_as_unset() -> None:
    found = loaded(ROOTS="", CA_BUNDLE="", DNS_CREDENTIALS="", METRICS_FILE="")
    assert (found.roots, found.ca_bundle, found.dns_credentials) == (None, None, None)
    assert found.metrics == found.state_dir / "metrics.prom"


def line(**changes: Any) -> str:
    settings = certs_settings(Path("/t"), **changes)
    return shlex.join(certbot.command(settings, Places.of(settings)))


def test_certbots_command_for_a_file_on_port_80() -> None:
    made = line(email="ops@example.org")
    for part in (
        "certonly --non-interactive --agree-tos",
        "--webroot --webroot-path /t/webroot",
        f"--server {PRODUCTION} --cert-name example.org",
        "--key-type ecdsa --elliptic-curve secp256r1",
        "--email ops@example.org",
        "-d example.org -d app.example.org",
    ):
        assert part in made
    assert "--register-unsafely-without-email" in line()


def test_certbots_command_for_a_dns_record() -> None:
    names = ("example.org", "*.example.org")
    made = line(domains=names, challenge="dns-01", dns_provider="cloudflare", dns_credentials=Path("/run/s/cf.ini"))
    assert "--authenticator dns-cloudflare --preferred-challenges dns-01" in made
    assert "--dns-cloudflare-credentials /run/s/cf.ini --dns-cloudflare-propagation-seconds 60" in made
    assert "-d example.org -d '*.example.org'" in made
    assert "--webroot" not in made
    assert "-propagation-seconds" not in line(challenge="dns-01", dns_provider="cloudflare", dns_propagation=0)
    bare = line(domains=names, challenge="dns-01", dns_provider="route53")
    assert "--authenticator dns-route53" in bare
    assert "--dns-route53" not in bare


def test_each_authority_has_folders_of_its_own() -> None:
    assert Places.of(certs_settings(Path("/t"))).base != Places.of(certs_settings(Path("/t"), staging=True)).base


def test_the_key_of_an_account_is_in_a_private_file_and_in_no_command(tmp_path: Path) -> None:
    (tmp_path / "hmac").write_text("c2VjcmV0\n")
    settings = certs_settings(tmp_path, eab_kid="kid-1", eab_key_file=tmp_path / "hmac")
    places = Places.of(settings)
    certbot.prepare(settings, places)
    assert "eab-kid = kid-1\neab-hmac-key = c2VjcmV0\n" in places.options.read_text()
    assert places.options.stat().st_mode & 0o777 == 0o600
    assert "c2VjcmV0" not in shlex.join(certbot.command(settings, places))


def test_certbot_sees_only_the_variables_that_are_named() -> None:
    settings = certs_settings(Path("/t"), pass_env=("AWS_PROFILE",), ca_bundle=Path("/t/ca.pem"))
    seen = certbot.child_environment(settings, {"AWS_PROFILE": "dns", "C2L_API_SECRET": "x", "PATH": "/bin"})
    assert seen["AWS_PROFILE"] == "dns"
    assert seen["REQUESTS_CA_BUNDLE"] == "/t/ca.pem"
    assert "C2L_API_SECRET" not in seen


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("urn:ietf:params:acme:error:rateLimited :: too many certificates already issued", "limit is reached"),
        ("Detail: DNS problem: NXDOMAIN looking up A for example.org", "add its A or AAAA record"),
        ("Detail: DNS problem: NXDOMAIN looking up TXT for _acme-challenge.example.org", "PROPAGATION"),
        ("Detail: 192.0.2.1: Fetching http://example.org/.well-known/…: Timeout during connect", "port 80"),
        ("Detail: 192.0.2.1: Invalid response from http://example.org/.well-known/x: 404", "something else answers"),
        ("Detail: CAA record for example.org prevents issuance", "CAA"),
        ("Could not choose appropriate plugin: The requested dns-x plugin does not appear to be installed", "lacks"),
        ("certbot: error: unrecognized arguments: --dns-x-propagation-seconds 60", "C2L_CERT_DNS_PROPAGATION=0"),
        ("certbot: error: unrecognized arguments: --dns-x-credentials /run/own/dns.ini", "lacks the DNS plugin"),
        ("requests.exceptions.ConnectionError: HTTPSConnectionPool(host='x'): Max retries exceeded", "not reached"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "C2L_CERTS_CA_BUNDLE"),
        ("Received response from server: NOTAUTH", "refuses the credentials"),
        ("something new", hints.UNKNOWN),
    ],
)
def test_what_to_mend(said: str, words: str) -> None:
    assert words in hints.advice(said)
    assert hints.limited(said) == ("rateLimited" in said)
