from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.api.oidc.policy import (
    AdminRule,
    Person,
    Policy,
    Refused,
    SignUp,
    claim_of,
    parse_admin,
    person_of,
    refusal,
)

BOB = {"email": "bob@example.org", "email_verified": True, "groups": ["staff"], "name": "Bob"}
LIST = SignUp.ALLOW_LIST


def verdict(policy: Policy, claims: dict[str, Any], *, admin: bool = False, known: bool = False) -> Refused | None:
    return refusal(policy, person_of(claims, policy), admin=admin, known=known)


def test_open_lets_in_everybody() -> None:
    assert verdict(Policy(), {}) is None


def test_closed_lets_in_administrators_and_whom_it_knows() -> None:
    policy = Policy(SignUp.CLOSED, emails=frozenset({"bob@example.org"}))
    assert verdict(policy, BOB) is Refused.CLOSED
    assert verdict(policy, BOB, admin=True) is None
    assert verdict(policy, BOB, known=True) is None


def test_a_list_lets_in_whom_it_names_and_no_more_whom_it_does_not() -> None:
    by_email = Policy(LIST, emails=frozenset({"bob@example.org"}))
    by_domain = Policy(LIST, domains=frozenset({"example.org"}))
    by_group = Policy(LIST, groups=frozenset({"staff"}))
    for policy in (by_email, by_domain, by_group):
        assert verdict(policy, BOB) is None
        assert verdict(policy, {}) is Refused.NOT_LISTED
        assert verdict(policy, {}, known=True) is Refused.NOT_LISTED  # whoever is taken off the list is out
        assert verdict(policy, {}, admin=True) is None
    assert verdict(by_email, {**BOB, "email": "Bob@Example.ORG"}) is None
    assert verdict(by_group, {"groups": "staff"}) is None
    for other in (
        "bob@example.org.evil",
        "bob@evil-example.org",
        "bob@sub.example.org",
        "example.org",
        "@example.org",
    ):
        assert verdict(by_domain, {**BOB, "email": other}) is Refused.NOT_LISTED


@pytest.mark.parametrize("said", [False, None, "true", "false", 1, [True]])
def test_an_email_counts_only_when_it_is_verified(said: object) -> None:
    policy = Policy(LIST, emails=frozenset({"bob@example.org"}), domains=frozenset({"example.org"}))
    assert verdict(policy, {**BOB, "email_verified": said}) is Refused.UNVERIFIED
    without = {name: value for name, value in BOB.items() if name != "email_verified"}
    assert verdict(policy, without) is Refused.UNVERIFIED


@pytest.mark.parametrize(
    "email",
    [
        "bob@evil.example@example.org",  # the last @ decides; we take neither
        '"bob@evil.example"@example.org',
        "bob@example.org\n",
        " bob@example.org",
        "bob@\N{CYRILLIC SMALL LETTER IE}xample.org",
        "bob@EXAMPLE.ORG\N{KELVIN SIGN}",
        "b\N{LATIN SMALL LETTER DOTLESS I}b@example.org",
        "x" * 300 + "@example.org",
        "bob@example.org,eve@evil.example",
        ["bob@example.org"],
        {"bob@example.org": 1},
        None,
        1,
    ],
)
def test_what_only_looks_like_a_listed_address(email: object) -> None:
    policy = Policy(LIST, domains=frozenset({"example.org"}))
    assert verdict(policy, {**BOB, "email": email}) is Refused.NOT_LISTED


def test_an_empty_list_entry_names_nobody() -> None:
    policy = Policy(LIST, emails=frozenset({""}), domains=frozenset({""}), groups=frozenset({"staff"}))
    assert verdict(policy, {"email": "", "email_verified": True}) is Refused.NOT_LISTED


def test_who_is_administrator_by_a_claim() -> None:
    policy = Policy(admin=AdminRule("roles", "admin"))
    assert person_of({"roles": ["user", "admin"]}, policy).admin
    assert person_of({"roles": "admin"}, policy).admin
    for roles in (["administrator"], "admin user", {"admin": True}, None, True, [["admin"]]):
        assert not person_of({"roles": roles}, policy).admin
    assert not person_of({"roles": ["admin"]}, Policy()).admin  # it is the first then, whatever a claim says


def test_a_claim_may_be_nested_or_have_a_dot_in_its_name() -> None:
    claims = {"realm_access": {"roles": ["a"]}, "https://example.org/roles": ["b"]}
    assert claim_of(claims, "realm_access.roles") == ["a"]
    assert claim_of(claims, "https://example.org/roles") == ["b"]
    assert claim_of(claims, "realm_access.roles.x") is None
    assert claim_of({"a": [1]}, "a.b") is None
    assert claim_of({}, "a") is None


def test_the_rule_for_administrators_is_read() -> None:
    assert parse_admin("first").first
    assert parse_admin("groups=admins") == AdminRule("groups", "admins")
    assert parse_admin("https://x/roles=a=b") == AdminRule("https://x/roles", "a=b")
    for text in ("", "admins", "=x", "x=", "First"):
        with pytest.raises(ValueError, match="first"):
            parse_admin(text)


def test_a_name_is_made_fit_to_show() -> None:
    policy = Policy()
    assert person_of({"name": " Bob\u202e\n\x00 "}, policy).name == "Bob"
    assert len(person_of({"name": "x" * 1000}, policy).name) == 100
    assert person_of({"name": "", "preferred_username": "bob"}, policy).name == "bob"
    assert person_of({"name": ["x"]}, policy).name == ""
    assert "Bob" not in repr(person_of(BOB, policy))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(["email", "email_verified", "name", "groups", "a"]), JSON))
def test_whatever_a_provider_says_is_read_and_lets_no_stranger_in(claims: dict[str, Any]) -> None:
    policy = Policy(
        LIST, emails=frozenset({"nobody@example.org"}), groups_claim="groups", admin=AdminRule("a.b", "zzz")
    )
    person = person_of(claims, policy)
    assert isinstance(person, Person)
    assert not person.admin
    assert refusal(policy, person, admin=person.admin, known=True) is not None
