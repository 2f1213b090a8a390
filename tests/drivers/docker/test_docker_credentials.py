"""Registry credentials: forms, sources, exact matching, and that nothing of them is told."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from hostler.drivers.docker.auth import load_credentials, parse_credentials
from hostler.errors import ConfigError

from ...conftest import Logs


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def file(**hosts: dict[str, str]) -> str:
    return json.dumps({"auths": hosts})


def test_both_forms_of_the_document() -> None:
    entry = {"my.registry:5000": {"auth": auth("me", "a:b")}}
    expected = {"username": "me", "password": "a:b", "serveraddress": "my.registry:5000"}
    for document in (entry, {"auths": entry}, {"auths": entry, "credsStore": "desktop"}):
        assert parse_credentials(json.dumps(document)).lookup("my.registry:5000") == expected


def test_addresses_may_be_urls() -> None:
    found = parse_credentials(json.dumps({"https://My.registry/v2/": {"auth": auth("u", "p")}}))
    assert found.lookup("my.registry")["username"] == "u"


def test_tokens_replace_the_password() -> None:
    found = parse_credentials(
        json.dumps(
            {
                "a.b": {"auth": auth("u", "p"), "identitytoken": "id"},
                "c.d": {"auth": auth("u", "p"), "registrytoken": "reg"},
            }
        )
    )
    assert found.lookup("a.b") == {"username": "u", "identitytoken": "id", "serveraddress": "a.b"}
    assert found.lookup("c.d") == {"registrytoken": "reg", "serveraddress": "c.d"}


def test_hosts_match_exactly() -> None:
    """Weakness 04/6: credentials of one host must not go to another of its domain."""
    found = parse_credentials(json.dumps({"a.b.c": {"auth": auth("u", "p")}}))
    assert found.lookup("a.b.c")
    for other in ("b.c", "x.a.b.c", "x.b.c", "a.b.c:5000", "a.b.cc", ""):
        assert found.lookup(other) == {}


@pytest.mark.parametrize(
    "host", ["hub.docker.com", "index.docker.io", "https://index.docker.io/v1/"]
)
def test_the_hub_has_several_names(host: str) -> None:
    found = parse_credentials(json.dumps({host: {"auth": auth("u", "p")}}))
    assert found.lookup("")["username"] == "u"
    assert found.lookup("docker.io")["username"] == "u"


def test_of_two_hub_entries_the_first_name_is_used() -> None:
    entries = {
        "index.docker.io": {"auth": auth("second", "p")},
        "hub.docker.com": {"auth": auth("first", "p")},
    }
    assert parse_credentials(json.dumps(entries)).lookup("")["username"] == "first"


def test_files_without_credentials() -> None:
    assert parse_credentials('{"credsStore": "desktop"}').lookup("") == {}
    assert parse_credentials('{"auths": {"a.b": {}}}').lookup("a.b") == {}
    assert parse_credentials("{}").lookup("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        '["secret"]',
        '{"auths": "secret"}',
        '{"a.b": {"auth": "secret"}}',
        '{"a.b": {"auth": "c2VjcmV0"}}',
        '{"a.b": "secret"}',
        '{"a.b": {"password": ["secret"]}}',
    ],
)
def test_errors_name_the_setting_and_no_secret(text: str) -> None:
    with pytest.raises(ConfigError, match="FN_DOCKER_AUTH") as caught:
        load_credentials(text, {})
    assert "secret" not in str(caught.value)


def test_repr_tells_hosts_only() -> None:
    found = parse_credentials(json.dumps({"a.b": {"auth": auth("user", "pass")}}))
    assert repr(found) == "<Credentials for ['a.b']>"


def write(path: Path, user: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file(**{"a.b": {"auth": auth(user, "p")}}))


def test_order_of_the_files(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home"), "DOCKER_CONFIG": str(tmp_path / "config")}
    files = [
        ("third", tmp_path / "home" / ".dockercfg"),
        ("second", tmp_path / "home" / ".docker" / "config.json"),
        ("first", tmp_path / "config" / "config.json"),
    ]
    assert load_credentials("", environ).lookup("a.b") == {}
    for user, path in files:
        write(path, user)
        assert load_credentials("", environ).lookup("a.b")["username"] == user
    inline = file(**{"a.b": {"auth": auth("inline", "p")}})
    assert load_credentials(inline, environ).lookup("a.b")["username"] == "inline"


def test_broken_file_is_logged(tmp_path: Path, logs: Logs) -> None:
    (tmp_path / ".dockercfg").write_text("secret")
    assert load_credentials("", {"HOME": str(tmp_path)}).lookup("a.b") == {}
    [entry] = logs.with_event("credentials not read")
    assert entry["path"] == str(tmp_path / ".dockercfg")
    assert "secret" not in str(entry)
