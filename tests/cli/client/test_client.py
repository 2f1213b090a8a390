"""``hostler`` as a client, as a process, against a node that is another one."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.functions.build import fnt_path

from .._process import SCRIPT, clean_env, open_node, run

ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@attrs.frozen
class Client:
    url: str

    async def __call__(self, *args: str, stdin: bytes = b"") -> Any:
        with trio.fail_after(60):
            done = await trio.run_process(
                [str(SCRIPT), *args],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=clean_env({"FN_API_URL": self.url}),
            )
        out, err = done.stdout.decode(), done.stderr.decode()
        return subprocess.CompletedProcess(args, done.returncode, out, err)

    async def ok(self, *args: str, stdin: bytes = b"") -> str:
        """Its output, with what differs from run to run replaced by a word."""
        done = await self(*args, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        text = done.stdout.replace(self.url, "URL").replace(str(fnt_path()), "FNT")
        return ID.sub("ID", DATE.sub("DATE", text))

    async def fails(self, *args: str, code: int, message: str) -> None:
        done = await self(*args)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr == f"hostler: error: {message}\n"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    options = ("--driver", "process", "--bind", "127.0.0.1:0")
    async with open_node("serve", *options, cwd=tmp_path) as node:
        yield Client(node.url)


async def test_an_app_a_function_and_a_trigger_from_first_to_last(client: Client) -> None:
    assert await client.ok("app", "create", "shop", "-c", "REGION=north") == "created app shop\n"
    image = str(fnt_path())
    made = await client.ok("fn", "create", "shop", "pay", image, "-m", "256", "-c", "A=1")
    assert made == "created function shop/pay\n"
    made = await client.ok("trigger", "create", "shop", "pay", "web", "--source", "/pay")
    assert made == "created trigger shop/pay/web\n"
    assert lines(await client.ok("app", "list")) == ["NAME ID UPDATED", "shop ID DATE"]
    assert lines(await client.ok("fn", "list", "shop")) == [
        "NAME IMAGE MEMORY TIMEOUT ENDPOINT",
        "pay FNT 256 30 URL/invoke/ID",
    ]
    assert lines(await client.ok("trigger", "list", "shop", "pay")) == [
        "NAME SOURCE ENDPOINT",
        "web /pay URL/t/shop/pay",
    ]
    assert await client.ok("fn", "inspect", "shop", "pay", "--endpoint") == "URL/invoke/ID\n"
    assert lines(await client.ok("fn", "inspect", "shop", "pay")) == [
        *("id ID", "name pay", "app id ID", "image FNT", "memory 256", "timeout 30"),
        *("idle timeout 30", "config A = 1"),
        "annotations fnproject.io/fn/invokeEndpoint = URL/invoke/ID",
        *("created at DATE", "updated at DATE"),
    ]
    changed = await client.ok("fn", "update", "shop", "pay", "-c", "A=", "-c", "B=2", "--json")
    assert json.loads(changed)["config"] == {"B": "2"}
    await client.ok("app", "update", "shop", "--annotation", 'team={"size":2}')
    found = json.loads(await client.ok("app", "inspect", "shop", "--json"))
    assert (found["config"], found["annotations"]) == ({"REGION": "north"}, {"team": {"size": 2}})
    await client.ok("trigger", "update", "shop", "pay", "web", "--source", "/other")
    (trigger,) = json.loads(await client.ok("trigger", "list", "shop", "--json"))
    assert trigger["source"] == "/other"
    await client.ok("trigger", "delete", "shop", "pay", "web")
    await client.ok("fn", "delete", "shop", "pay")
    assert await client.ok("app", "delete", "shop") == "deleted app shop\n"
    assert json.loads(await client.ok("app", "list", "--json")) == []


def lines(text: str) -> list[str]:
    """Without the widths of the columns."""
    return [" ".join(line.split()) for line in text.splitlines()]


async def test_what_is_not_there_or_not_valid_has_an_exit_code_of_its_own(client: Client) -> None:
    await client.ok("app", "create", "shop")
    await client.fails("app", "create", "shop", code=4, message="App already exists")
    await client.fails("app", "create", "a b", code=1, message="Invalid app name")
    await client.fails(
        *("fn", "list", "none"), code=3, message="there is no app 'none'; see hostler app list"
    )
    await client.fails(
        *("fn", "inspect", "shop", "f"),
        code=3,
        message="app 'shop' has no function 'f'; see hostler fn list shop",
    )
    await client.ok("fn", "create", "shop", "pay", "x")
    await client.fails(
        "app", "inspect", "shp", code=3, message="there is no app 'shp'; is it 'shop'?"
    )
    await client.fails(
        *("invoke", "shop", "pya"),
        code=3,
        message="app 'shop' has no function 'pya'; is it 'pay'?",
    )
    await client.fails(
        *("trigger", "inspect", "shop", "pay", "web"),
        code=3,
        message="function 'pay' has no trigger 'web'; see hostler trigger list shop",
    )
    usage = await client("app", "create", "x", "-c", "nonsense")
    assert usage.returncode == 2
    assert "'nonsense' is not KEY=VALUE" in usage.stderr


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "http://me:secret@127.0.0.1:1"])
async def test_a_server_that_is_not_there_is_named(server: str) -> None:
    done = await run("app", "list", "--server", server)
    assert (done.returncode, done.stdout) == (5, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("hostler: error: http://127.0.0.1:1 does not answer as it should (")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("node", [("lb", "--runners", "127.0.0.1:1"), ("runner",)])
async def test_a_node_without_an_api_is_named(node: tuple[str, ...], tmp_path: Path) -> None:
    options: tuple[str, ...] = ("--driver", "process", "--http-bind", "127.0.0.1:0")
    if node[0] == "lb":
        (tmp_path / "f.yaml").write_text("apps: []\n")
        options = ("--functions", str(tmp_path / "f.yaml"))
    async with open_node(*node, *options, "--bind", "127.0.0.1:0") as there:
        await Client(there.url).fails(
            *("app", "list"),
            code=3,
            message=f"{there.url} has no API for functions (it answered 404). Is --server right?",
        )


async def test_an_api_node_that_names_no_load_balancer_is_told(tmp_path: Path) -> None:
    async with open_node("api", "--bind", "127.0.0.1:0", cwd=tmp_path) as there:
        client = Client(there.url)
        await client.ok("app", "create", "shop")
        await client.ok("fn", "create", "shop", "pay", "pay:1")
        done = await client("invoke", "shop", "pay", "--data", "x")
    assert (done.returncode, done.stdout) == (3, "")
    assert "; does FN_PUBLIC_LB_URL of the API node name a load balancer?" in done.stderr


async def test_a_long_list_is_read_page_by_page(client: Client) -> None:
    from hostler.api_client import open_api_client
    from hostler.models import App

    async with open_api_client(client.url) as api:
        for number in range(101):
            await api.apps.create(App(id="", name=f"app-{number:03}"))
    found = json.loads(await client.ok("app", "list", "--json"))
    assert [app["name"] for app in found] == [f"app-{number:03}" for number in range(101)]


# --- invoke ----------------------------------------------------------------------------------


async def test_invoke_streams_the_body_there_and_back(client: Client, tmp_path: Path) -> None:
    await deploy(client)
    assert await client.ok("invoke", "shop", "pay", "-d", "hello") == "hello"
    assert await client.ok("invoke", "shop", "pay", stdin=b"piped") == "piped"
    (tmp_path / "body").write_bytes(b"y" * 3_000_000)
    big = await client.ok("invoke", "shop", "pay", "-d", f"@{tmp_path / 'body'}")
    assert big == "y" * 3_000_000
    shown = await client("invoke", "shop", "pay", "-i", "-d", "x", "-t", "text/x", "-H", "a:b")
    assert (shown.returncode, shown.stdout) == (0, "x")
    assert shown.stderr.startswith("200 OK\n")
    assert "content-type: text/x\n" in shown.stderr
    detached = await client("invoke", "shop", "pay", "--detached", "-i", "-d", "x")
    assert (detached.stdout, detached.stderr[:4]) == ("", "202 ")


async def test_invoke_tells_by_its_exit_code_who_failed(client: Client) -> None:
    await deploy(client)
    crashed = await client("invoke", "shop", "pay", "-d", "x", "-H", "Fnt-Do: crash")
    assert (crashed.returncode, crashed.stdout) == (6, "")
    assert re.fullmatch(
        r"hostler: error: 502 Bad Gateway: error receiving function response: "
        r"the container was killed by signal 6 \(call \w{26}\)\n",
        crashed.stderr,
    )
    none = await client("invoke", "shop", "none", "-d", "x")
    assert none.returncode == 3


async def deploy(client: Client) -> None:
    await client.ok("app", "create", "shop")
    await client.ok("fn", "create", "shop", "pay", str(fnt_path()))


# --- completion ------------------------------------------------------------------------------


async def complete(words: str, url: str) -> list[str]:
    """What bash would offer after ``words``."""
    env: Mapping[str, str] = {
        "_HOSTLER_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "FN_API_URL": url,
    }
    done = await run(env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.removeprefix("plain,") for line in done.stdout.split()]


async def test_the_shell_completes_commands_and_names(client: Client) -> None:
    await deploy(client)
    await client.ok("trigger", "create", "shop", "pay", "web", "--source", "/")
    assert "invoke" in await complete("hostler inv", client.url)
    assert await complete("hostler invoke s", client.url) == ["shop"]
    assert await complete("hostler invoke shop ", client.url) == ["pay"]
    assert await complete("hostler trigger inspect shop pay w", client.url) == ["web"]
    assert await complete("hostler invoke none ", client.url) == []
    assert await complete('hostler invoke "" ', client.url) == []
    assert await complete('hostler trigger inspect shop "" ', client.url) == []
    assert await complete("hostler invoke ", "http://127.0.0.1:1") == []
