"""``hostler run DIR``: a directory's function, served and reloaded, as processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.functions.build import fdk_command, fnt_path

from .._process import NodeProcess, ends, open_node, run


def serve(folder: Path, *args: str, **options: Any) -> Any:
    return open_node("run", str(folder), "--bind", "127.0.0.1:0", *args, **options)


async def until(node: NodeProcess, part: str) -> None:
    with trio.fail_after(60):
        while part.encode() not in node.log:  # noqa: ASYNC110  (a pipe's reader fills it)
            await trio.sleep(0.01)


def lives(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    return folder


async def test_an_executable_with_triggers_is_served_and_its_requests_are_told(
    folder: Path,
) -> None:
    shutil.copy(fnt_path(), folder / "func")
    (folder / "func.yaml").write_text(
        "name: pay\nentrypoint: ./func\nconfig: {A: '1'}\ntriggers: [{name: t, source: /pay}]\n"
    )
    async with (
        serve(folder, "--app", "shop") as node,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
    ):
        assert (await client.post("/invoke/pay", content=b"hello")).content == b"hello"
        answer = await client.post("/t/shop/pay")
        assert answer.status_code == 200
        printed = await client.post("/invoke/pay", headers={"Fnt-Do": "out=from-inside;env"})
        assert printed.json()["env"]["A"] == "1"
        await until(node, "| from-inside\n")
        await until(node, "POST /invoke/pay 200 ")
        assert await ends(node) == 0


async def test_a_changed_directory_gets_a_new_process_and_a_broken_one_keeps_the_old(
    folder: Path,
) -> None:
    (folder / "func").symlink_to(fnt_path())
    (folder / "func.yaml").write_text("name: pay\nconfig: {A: one}\n")
    async with (
        serve(folder) as node,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
    ):

        async def config() -> str:
            answer = await client.post("/invoke/pay", headers={"Fnt-Do": "env"})
            value: str = answer.json()["env"]["A"]
            return value

        assert await config() == "one"
        (folder / "func.yaml").write_text("name: pay\nconfig: {A: two}\n")
        with trio.fail_after(60):
            while await config() != "two":  # noqa: ASYNC110  (only a call tells)
                await trio.sleep(0.02)
        (folder / "func.yaml").write_text("name: pay\nnonsense: 1\n")
        await until(node, "nonsense: unknown field")
        assert await config() == "two"
        pid = (await client.post("/invoke/pay", headers={"Fnt-Do": "pid"})).text
        inner = folder / "inner"
        inner.mkdir()
        (folder / "func.yaml").write_text("name: pay\nconfig: {A: three}\n")
        (inner / "data").write_text("new")
        with trio.fail_after(60):
            while await config() != "three":  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert (await client.post("/invoke/pay", headers={"Fnt-Do": "pid"})).text != pid
        assert await ends(node) == 0
    assert not lives(pid)


async def test_a_directory_of_fns_python_kit_runs_and_is_reloaded(folder: Path) -> None:
    """Found by its func.py; the kit is that of the directory's virtual environment."""
    _, variable, python, fdk, *_ = fdk_command()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text(
        f'#!/bin/sh\n{variable}:$PYTHONPATH exec {python} "$@"\n'
    )
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    os.symlink(fdk, folder / ".venv" / "bin" / "fdk")
    source = "def handler(ctx, data=None):\n    return 'first ' + data.getvalue().decode()\n"
    (folder / "func.py").write_text(source)
    async with (
        serve(folder) as node,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
    ):
        assert (await client.post("/invoke/hello", content=b"x")).text == "first x"
        (folder / "func.py").write_text(source.replace("first", "second"))
        with trio.fail_after(60):
            while await answer(client) != "second x":  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert await ends(node) == 0


async def answer(client: httpx.AsyncClient) -> str:
    return (await client.post("/invoke/hello", content=b"x")).text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no function: make a func.yaml, or func.py"),
        ({"func.yaml": "name: a/b"}, "func.yaml: name: 'a/b' cannot stand in a URL path"),
        ({"func.yaml": "memory: x"}, "func.yaml: memory: must be a whole number of MB"),
        ({"func.yaml": "version: '1'"}, "version: '1' must be three numbers: 0.0.1"),
        ({"func.yaml": "- x"}, "func.yaml: must be a mapping of fields, not a list"),
        ({"func.yaml": "entrypoint: ./none"}, "there is no program './none'; build it first"),
        ({"func.yaml": "triggers: [{name: t, source: x}]"}, "'x' must begin with a slash"),
        ({"func.js": "", "package.json": "{}"}, "npm install"),
    ],
)
async def test_a_directory_that_can_not_run_says_what_is_missing(
    files: dict[str, str], message: str, folder: Path, tmp_path: Path
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "node").symlink_to("/bin/true")
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = await run("run", str(folder), "--bind", "127.0.0.1:0", env=path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert message in line
