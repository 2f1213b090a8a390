"""``hostler`` at a terminal: what it asks, and what a real shell completes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostler.api_client import open_api_client
from hostler.models import App, Fn
from tests.functions.build import fnt_path

from .._process import NodeProcess, open_node, run
from .._terminal import open_terminal


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    options = ("--driver", "process", "--bind", "127.0.0.1:0")
    async with open_node("serve", *options, cwd=tmp_path) as node:
        async with open_api_client(node.url) as api:
            app = await api.apps.create(App(id="", name="shop"))
            await api.fns.create(Fn(id="", name="pay", app_id=app.id, image=str(fnt_path())))
        yield node


async def apps(node: NodeProcess) -> str:
    done = await run("app", "list", "--json", env={"FN_API_URL": node.url})
    text: str = done.stdout
    return text


async def test_deleting_asks_at_a_terminal_and_yes_answers(
    node: NodeProcess, tmp_path: Path
) -> None:
    delete = ("hostler", "app", "delete", "shop")
    async with open_terminal(delete, tmp_path, FN_API_URL=node.url) as terminal:
        question = await terminal.until("[y/N]: ")
        assert "Delete app shop with its functions and triggers?" in question
        await terminal.type("n\n")
        await terminal.until("Aborted")
        assert await terminal.ends() == 1
    assert '"shop"' in await apps(node)
    async with open_terminal((*delete, "--yes"), tmp_path, FN_API_URL=node.url) as terminal:
        assert await terminal.until("\n") == "deleted app shop\r\n"
        assert await terminal.ends() == 0
    assert '"shop"' not in await apps(node)


async def test_bash_completes_commands_and_names(node: NodeProcess, tmp_path: Path) -> None:
    shell = ("bash", "--noprofile", "--norc", "-i")
    async with open_terminal(shell, tmp_path, FN_API_URL=node.url, PS1="> ") as terminal:
        await terminal.until("> ")
        await terminal.type('eval "$(hostler --show-completion)"; echo se"t"\n')
        await terminal.until("\nset\r\n")
        await terminal.until("> ")
        await terminal.type("hostler inv\t")
        await terminal.until("hostler invoke ")
        await terminal.type("sh\t")
        await terminal.until("shop ")
        await terminal.type("p\t")
        await terminal.until("pay ")
        await terminal.type("--data hello\n")
        await terminal.until("hello\r\nhello")
