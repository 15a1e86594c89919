"""What to mend, from what certbot said. For people only: no decision but a longer pause rests on these words."""

import re

_LIMITED = re.compile(
    r"rateLimited|too many (certificates|failed authorizations|new orders|registrations)", re.IGNORECASE
)
_HINTS: list[tuple[re.Pattern[str], str]] = []
"""The first that fits counts, so special ones come first."""
UNKNOWN = "see what certbot said in the log"


def _hint(advice: str, *patterns: str) -> None:
    _HINTS.append((re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL), advice))


_hint(
    "the ACME server's own certificate is not trusted: set C2L_CERTS_CA_BUNDLE to its authority's PEM file",
    r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
)
_hint(
    "this authority requires an account made with it: set C2L_CERTS_EAB_KID and C2L_CERTS_EAB_KEY_FILE",
    r"externalAccountRequired|external account binding",
)
_hint(
    'a CAA record of the domain forbids this authority: allow it there, such as `0 issue "letsencrypt.org"`',
    r"\bCAA\b",
)
_hint(
    "the DNS plugin knows no such waiting time: set C2L_CERTS_DNS_PROPAGATION=0 (with Compose "
    "C2L_CERT_DNS_PROPAGATION=0); or certbot lacks the plugin: install certbot-dns-PROVIDER beside certbot",
    r"unrecognized arguments: --dns-[a-z0-9-]{1,40}-propagation-seconds",
)
_hint(
    "certbot lacks the DNS plugin: install certbot-dns-PROVIDER beside certbot",
    r"could not choose appropriate plugin|requested .{1,60} plugin does not appear|unrecognized arguments: --dns",
)
_hint(
    "the DNS plugin's credentials are missing or incomplete: check the file in C2L_CERTS_DNS_CREDENTIALS",
    r"(credentials|configuration) file.{0,200}(missing|not exist|properties)",
    r"(File not found|unable to (find|read|locate)).{0,80}credential|file not found: ",
)
_hint(
    "the DNS server refuses the credentials: check key, algorithm and zone in C2L_CERTS_DNS_CREDENTIALS",
    r"NOTAUTH|BADKEY|BADSIG|TSIG|Received response from server: REFUSED",
    r"invalid (api )?(token|credential)|authentication error|AccessDenied",
)
_hint(
    "the DNS provider knows no zone for this domain: check where it is hosted, and the account",
    r"Unable to determine base domain|domain not found|no (matching )?zone",
)
_hint(
    "the authority refuses the e-mail address: correct C2L_CERTS_EMAIL",
    r"invalidContact|invalid email|contact email",
)
_hint(
    "the authority does not see the DNS record: raise C2L_CERTS_DNS_PROPAGATION, and check that the zone's public "
    "name servers are those that the plugin writes to",
    r"NXDOMAIN looking up TXT|No TXT record|Incorrect TXT record|did not (yield|return) correct.{0,40}TXT",
)
_hint(
    "the name does not resolve: add its A or AAAA record, and wait until it is known everywhere",
    r"NXDOMAIN|no valid A records|DNS problem|SERVFAIL",
)
_hint(
    "something else answers on port 80 of this name: check that its DNS records lead here and that nginx serves the "
    "webroot",
    r"Invalid response from http|response malformed|key authorization file",
)
_hint(
    "the authority does not reach port 80: open it in firewall and router, and check that A and AAAA records lead to "
    "this machine",
    r"Timeout during connect|Type:\s+connection|Error getting validation data|Fetching http",
)
_hint(
    "the ACME server is not reached: check the way out, DNS, and C2L_CERTS_SERVER",
    r"ConnectionError|Max retries exceeded|NewConnectionError|Connection refused|Name or service not known",
    r"Temporary failure in name|An unexpected error occurred:\s*requests",
)
_hint("the disk is full: make room", r"No space left")
_hint(
    "certbot may not write: give its user the state directory and the webroot",
    r"Permission denied|Read-only file system",
)
_hint("another certbot uses the state directory: let only one run", r"another instance of certbot")


def advice(output: str) -> str:
    """Return what to do about a failed run."""
    if limited(output):
        return "the authority's limit is reached: wait, and try changes with C2L_CERTS_STAGING=true"
    return next((text for pattern, text in _HINTS if pattern.search(output)), UNKNOWN)


def limited(output: str) -> bool:
    """Return whether the authority said that a limit is reached."""
    return _LIMITED.search(output) is not None
