"""Credential helpers: real programs, good ones and bad ones."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler.drivers.docker.auth import (
    HELPER_LIMIT,
    Credentials,
    CredentialsUnavailable,
    Keychain,
    ask_helper,
    parse_credentials,
)

from ...conftest import Logs
from .conftest import WAIT

GOOD = """read address; echo "$address" >>"$LOG"
echo '{"ServerURL":"x","Username":"me","Secret":"pass of '"$address"'"}'"""
NOTHING = "echo credentials not found in native keychain; exit 1"


class Helpers:
    """A folder of helper programs; ``asked`` is what they were asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "log"
        self.environ = {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(self._log)}

    def add(self, name: str, script: str) -> None:
        path = self._folder / f"docker-credential-{name}"
        path.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 9\n{script}\n')
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._log.read_text().split() if self._log.exists() else []


@pytest.fixture
def helpers(tmp_path: Path) -> Helpers:
    return Helpers(tmp_path)


@pytest.fixture
async def open_nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery


def keychain(nursery: trio.Nursery, helpers: Helpers, **document: object) -> Keychain:
    return Keychain(parse_credentials(json.dumps(document)), helpers.environ, nursery)


async def test_a_helper_of_the_host_then_the_store_then_the_entries(
    open_nursery: trio.Nursery, helpers: Helpers
) -> None:
    helpers.add("good", GOOD)
    helpers.add("empty", NOTHING)
    chain = keychain(
        open_nursery,
        helpers,
        credHelpers={"a.b:5000": "good", "https://C.d/v2/": "empty"},
        credsStore="empty",
        auths={"c.d": {"auth": base64.b64encode(b"u:p").decode()}},
    )
    assert await chain.lookup("a.b:5000") == {
        "username": "me",
        "password": "pass of a.b:5000",
        "serveraddress": "a.b:5000",
    }
    assert (await chain.lookup("c.d"))["username"] == "u"
    assert await chain.lookup("a.b") == {}
    assert helpers.asked == ["a.b:5000"]


@pytest.mark.parametrize("registry", ["", "docker.io", "index.docker.io"])
@pytest.mark.parametrize(
    "document",
    [{"credsStore": "good"}, {"credHelpers": {"https://index.docker.io/v1/": "good"}}],
    ids=["store", "helper"],
)
async def test_helpers_know_the_hub_by_its_address(
    open_nursery: trio.Nursery, helpers: Helpers, registry: str, document: dict[str, object]
) -> None:
    helpers.add("good", GOOD)
    found = await keychain(open_nursery, helpers, **document).lookup(registry)
    assert found["username"] == "me"
    assert helpers.asked == ["https://index.docker.io/v1/"]


async def test_a_helper_may_give_a_token(open_nursery: trio.Nursery, helpers: Helpers) -> None:
    helpers.add("token", """echo '{"Username":"<token>","Secret":"t0k"}'""")
    found = await keychain(open_nursery, helpers, credsStore="token").lookup("a.b")
    assert found == {"identitytoken": "t0k", "serveraddress": "a.b"}


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo secret; exit 3", "ended with code 3"),
        ("echo secret", "did not print credentials"),
        ("""echo '{"Username": "secret"}'""", "did not print credentials"),
        ("kill -9 $$", "ended with code -9"),
        (None, "can't be run: No such file"),
    ],
)
async def test_failing_helper(
    open_nursery: trio.Nursery, helpers: Helpers, logs: Logs, script: str | None, text: str
) -> None:
    if script is not None:
        helpers.add("bad", script)
    chain = keychain(open_nursery, helpers, credsStore="bad")
    with pytest.raises(CredentialsUnavailable, match=f"docker-credential-bad {text}") as caught:
        await chain.lookup("a.b")
    [entry] = logs.with_event("no credentials")
    assert (entry["helper"], entry["registry"]) == ("bad", "a.b")
    assert "secret" not in f"{caught.value} {entry}"


async def test_hung_helper_is_killed_with_its_children(
    helpers: Helpers, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        helpers.add("hung", f"exec 3>{tmp_path}/pipe; echo >&3; sleep 1000")
        autojump_clock.autojump_threshold = float("inf")  # until the helper runs
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(CredentialsUnavailable, match="did not answer within 10 s"):
                    await ask_helper("hung", "a.b", helpers.environ)

            await trio.lowlevel.wait_readable(reader)
            assert os.read(reader, 2) == b"\n"
            autojump_clock.autojump_threshold = 0
        assert trio.current_time() == pytest.approx(HELPER_LIMIT)
        # The pipe ends, at the latest now, because its last writer has gone.
        autojump_clock.autojump_threshold = float("inf")
        await trio.lowlevel.wait_readable(reader)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


async def test_one_run_for_all_who_ask_at_the_same_time(
    open_nursery: trio.Nursery, helpers: Helpers
) -> None:
    helpers.add("good", GOOD)
    chain = keychain(open_nursery, helpers, credsStore="good")
    found: list[str] = []

    async def ask(registry: str) -> None:
        found.append((await chain.lookup(registry))["password"])

    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            for registry in ("a.b", "c.d") * 5:
                nursery.start_soon(ask, registry)
        assert sorted(found) == ["pass of a.b"] * 5 + ["pass of c.d"] * 5
        assert sorted(helpers.asked) == ["a.b", "c.d"]
        await chain.lookup("a.b")  # nothing is kept
    assert sorted(helpers.asked) == ["a.b", "a.b", "c.d"]


async def test_who_leaves_does_not_take_the_helper_along(
    open_nursery: trio.Nursery, helpers: Helpers, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    helpers.add("slow", f"cat {tmp_path}/go >/dev/null\n{GOOD}")
    chain = keychain(open_nursery, helpers, credsStore="slow")
    found: list[str] = []

    async def ask() -> None:
        found.append((await chain.lookup("a.b"))["username"])

    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as first:
                nursery.start_soon(ask)
                nursery.start_soon(_cancel_when_blocked, first)
                await chain.lookup("a.b")
            assert first.cancelled_caught
            await trio.to_thread.run_sync((tmp_path / "go").write_text, "")
    assert found == ["me"]


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


@pytest.mark.parametrize("name", ["../evil", "a b", "x/y"])
def test_the_name_of_a_helper_is_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="credential helper") as caught:
        parse_credentials(json.dumps({"credsStore": name}))
    assert name not in str(caught.value)


def test_without_helpers() -> None:
    assert Credentials().helper("a.b") == ""
