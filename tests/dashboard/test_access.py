"""Who may do what: tokens, links, roles, addresses. The pages and routes themselves are in
test_dashboard.py.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("streamlit")

from anomaly.errors import AnomalyError
from dashboard.access import (
    ROLES,
    AccessError,
    Key,
    Person,
    clean_name,
    is_private,
    read_roles,
    role_of,
)
from dashboard.launch import (
    AUTH_NEEDS,
    SAFE,
    job_folders,
    server_command,
    server_names,
    settings_for,
)
from dashboard.settings import Settings

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
NOON = 1_800_000_000.0


@given(st.text(max_size=50), st.sampled_from(ROLES))
def test_a_token_names_who_it_was_made_for(name, role):
    person = Person(name.encode("utf-8", "replace").decode(), role)
    assert KEY.person(KEY.token(person, NOON), NOON + 3600) == person


@given(st.data())
def test_a_token_with_any_other_character_is_refused(data):
    token = KEY.token(Person("ann", "viewer"), NOON)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != token[at]))
    with pytest.raises(AccessError, match="not signed in"):
        KEY.person(token[:at] + other + token[at + 1 :], NOON)


@pytest.mark.parametrize(
    "token", [None, "", ".", "a.b", "W10.", "\N{SNOWMAN}.\N{SNOWMAN}", "a" * 100_000]
)
def test_what_is_no_token_is_refused(token):
    with pytest.raises(AccessError, match="not signed in"):
        KEY.person(token, NOON)


def test_a_token_of_another_server_or_of_yesterday_is_refused():
    token = KEY.token(Person("ann", "admin"), NOON)
    with pytest.raises(AccessError, match="not signed in"):
        OTHER.person(token, NOON)
    with pytest.raises(AccessError, match="open too long"):
        KEY.person(token, NOON + 24 * 3600)


def test_a_link_opens_one_picture_for_a_while():
    link = urlsplit(KEY.link(7, "original", NOON))
    query = {name: values[0] for name, values in parse_qs(link.query).items()}
    assert link.path == "/evidence/7/original"
    KEY.check_link(link.path, query["until"], query["sign"], NOON + 3500)
    refused = [
        (8, "original", query["until"], query["sign"], NOON),
        (7, "heatmap", query["until"], query["sign"], NOON),
        (7, "original", str(int(query["until"]) + 1), query["sign"], NOON),
        (7, "original", query["until"], query["sign"][:-1], NOON),
        (7, "original", "", "", NOON),
        (7, "original", query["until"], query["sign"], NOON + 3 * 3600),
    ]
    for finding, kind, until, sign, now in refused:
        with pytest.raises(AccessError, match="not signed, or too old"):
            KEY.check_link(f"/evidence/{finding}/{kind}", until, sign, now)


def test_a_link_is_the_same_within_an_hour_so_that_the_browser_keeps_the_picture():
    hour = NOON // 3600 * 3600
    assert (
        KEY.link(7, "heatmap", hour)
        == KEY.link(7, "heatmap", hour + 3599)
        != KEY.link(7, "heatmap", hour + 3600)
    )


def test_a_signature_of_one_kind_is_none_of_the_other():
    said = KEY.token(Person("ann", "admin"), NOON).partition(".")[0]
    with pytest.raises(AccessError, match="not signed in"):
        KEY.person(f"{said}.{KEY._sign('link', said)}", NOON)


def test_roles_build_on_each_other():
    may = {role: [asked for asked in ROLES if Person("ann", role).may(asked)] for role in ROLES}
    assert may == {
        "viewer": ["viewer"],
        "inspector": ["viewer", "inspector"],
        "admin": ["viewer", "inspector", "admin"],
    }


def test_a_short_key_is_refused():
    with pytest.raises(AccessError, match="at least 32"):
        Key(b"short")


def test_roles_file(tmp_path):
    file = tmp_path / "roles.toml"
    file.write_text('"Ann@Example.com" = "admin"\n"bo@example.com" = "viewer"\n')
    roles = read_roles(file)
    assert roles == {"ann@example.com": "admin", "bo@example.com": "viewer"}
    assert role_of(" ANN@example.com", roles) == "admin"
    with pytest.raises(AccessError, match=r"eve@example\.com has no role here"):
        role_of("eve@example.com", roles)


@pytest.mark.parametrize(
    ("text", "match"),
    [('"a@b.c" = "boss"', "role 'boss' of a@b.c"), ("a@b.c", "cannot be read as roles")],
)
def test_roles_files_that_are_wrong(tmp_path, text, match):
    file = tmp_path / "roles.toml"
    file.write_text(text)
    with pytest.raises(AnomalyError, match=match):
        read_roles(file)


def test_names_become_one_line_that_can_be_shown():
    assert clean_name("  Ann\n\tB.\x00\u202e <b> ") == "Ann B. <b>"
    assert len(clean_name("a" * 1000)) == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "[::1]", "127.1.2.3"]
)
def test_addresses_of_this_machine(host):
    assert is_private(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "",
        "192.168.1.5",
        "review.example.com",
        "localhost.example.com",
        "127.0.0.1.nip.io",
    ],
)
def test_addresses_that_others_reach(host):
    assert not is_private(host)


def settings(host="127.0.0.1", **options):
    given = {"insecure": False, "roles": None, "auth_file": None, "allowed_hosts": ()} | options
    return settings_for("review.db", host, **given)


def test_on_this_machine_everybody_is_admin_and_nobody_logs_in():
    found = settings()
    assert (found.login, found.open_role, found.hosts) == (
        False,
        "admin",
        ("127.0.0.1", "localhost", "::1", "127.0.0.1"),
    )


@pytest.mark.parametrize(
    "options",
    [{"host": "0.0.0.0"}, {"host": "192.168.1.5"}, {"allowed_hosts": ["review.example.com"]}],
)
def test_a_public_address_without_login_is_refused(options):
    with pytest.raises(
        AnomalyError, match="nobody would have to log in: give --auth FILE and --roles"
    ):
        settings(**options)


def test_insecure_opens_it_but_makes_nobody_admin():
    assert settings("0.0.0.0", insecure=True).open_role == "inspector"


def test_jobs_need_an_admin(tmp_path):
    assert job_folders([tmp_path], settings()) == (str(tmp_path.resolve()),)
    with pytest.raises(AnomalyError, match="only who logs in as an admin may start jobs"):
        job_folders([tmp_path], settings("0.0.0.0", insecure=True))
    with pytest.raises(AnomalyError, match="no such folder"):
        job_folders([tmp_path / "none"], settings())


def test_login_needs_roles_and_roles_need_a_login(tmp_path):
    roles, auth = tmp_path / "roles.toml", tmp_path / "auth.toml"
    roles.write_text('"ann@example.com" = "admin"')
    with pytest.raises(AnomalyError, match="--auth without --roles"):
        settings(auth_file=auth)
    with pytest.raises(AnomalyError, match="--roles without --auth"):
        settings(roles=roles)
    with pytest.raises(AnomalyError, match=r"auth\.toml: no such file"):
        settings("0.0.0.0", roles=roles, auth_file=auth)
    auth.write_text("[auth]\nredirect_uri = 'x'\ncookie_secret = ''\n")
    with pytest.raises(
        AnomalyError,
        match=r"\[auth\] without cookie_secret, client_id, client_secret, server_metadata_url",
    ):
        settings("0.0.0.0", roles=roles, auth_file=auth)
    auth.write_text("[auth")
    with pytest.raises(AnomalyError, match=r"auth\.toml: cannot be read"):
        settings("0.0.0.0", roles=roles, auth_file=auth)
    pytest.importorskip("authlib")
    auth.write_text("[auth]\n" + "".join(f"{name} = 'x'\n" for name in AUTH_NEEDS))
    found = settings("0.0.0.0", roles=roles, auth_file=auth, allowed_hosts=["Review.example.com"])
    assert (
        found.login
        and found.roles == {"ann@example.com": "admin"}
        and "review.example.com" in found.hosts
    )


def test_allowed_hosts_are_names():
    with pytest.raises(AnomalyError, match="allowed host 'http://x/' found"):
        settings(insecure=True, allowed_hosts=["http://x/"])


def test_the_server_is_started_safely():
    found = settings()
    command = server_command(found, "127.0.0.1", 8501, None)
    flags = dict(zip(command[5::2], command[6::2], strict=True))
    assert {
        name.removeprefix("--"): flags[name] for name in flags if name.removeprefix("--") in SAFE
    } == SAFE
    assert (
        flags["--browser.gatherUsageStats"] == "false"
        and flags["--client.showErrorDetails"] == "none"
    )
    assert flags["--server.address"] == "127.0.0.1"
    assert [
        command[i + 1] for i, part in enumerate(command) if part == "--server.allowedHosts"
    ] == [
        "127.0.0.1",
        "localhost",
        "::1",
    ]
    # processes are seen by all users
    assert not any(re.search("review.db|" + found.secret, part) for part in command)


def test_settings_go_through_the_environment():
    found = Settings(
        "postgresql://u:p@h/d",
        "ab" * 32,
        ("a", "b"),
        True,
        {"x@y.z": "viewer"},
        "inspector",
        ("run",),
    )
    assert Settings.from_environment(found.to_environment()) == found
    with pytest.raises(AnomalyError, match="start the dashboard with anomaly review"):
        Settings.from_environment({})


def test_names_of_a_server_that_listens_everywhere():
    assert server_names("10.0.0.5") == ("10.0.0.5",)
    assert all(name == name.lower() for name in server_names("0.0.0.0"))
