"""Every block of the documentation is run, and does what the page says."""

from __future__ import annotations

import contextlib
import os
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import yaml

from hostler.functions import load_functions
from tests.functions import build

from .blocks import PAGES, ROOT, Block, blocks_of, commands_of, matches
from .session import Shell, open_shell

NOT_RUN = {
    "needs a node of Fn": 1,
    "it installs software": 3,
    "it needs a DNS server": 3,
    "it is a part of a program": 3,
    "it is a part of examples/custom_driver": 1,
    "tests/deploy does it in another way": 4,
}
"""How many blocks have which reason not to be run."""

HOW = "Write console, with $ before commands, or say what it is: see tests/docs/blocks.py"
RUN = {"console", "python", "yaml"}
SHOWN = {"text"}


def runnable(page: Path) -> list[Block]:
    return [
        b for b in blocks_of(page) if b.mark not in ("run by", "not run") and not b.is_directive
    ]


ENGINE_PAGES = {"README", "annotations", "upgrade-from-fn"}
"""Those with a node of which the default driver is needed."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """With an empty folder, and ``fdk`` as if pip had installed it."""
    *fdk, _, _ = build.fdk_command()
    program = tmp_path / ".bin" / "fdk"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(fdk)} "$@"\n')
    program.chmod(0o755)
    env = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "PATH": str(program.parent),
        "FN_EXPERIMENTAL_PREFORK_POOL_SIZE": "2",  # or an engine needs seconds for them
    }
    with open_shell(tmp_path, env) as shell:
        yield shell


@pytest.mark.netns
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if runnable(page) and page.stem not in ENGINE_PAGES],
    ids=lambda page: page.stem,
)
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, shell: Shell) -> None:
    for block in runnable(page):
        run(block, shell)


@pytest.fixture
def image_of_the_readme(docker_host: str, shell: Shell) -> Iterator[None]:
    """The kit's images are at a registry that tests do not need: a Dockerfile names one that was
    made here in their place. What is deployed does not stay."""
    base = build.fdk_image(docker_host)
    folder = shell.folder / "hello"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {base}\nADD . /function/\n")
    with contextlib.closing(docker.APIClient(base_url=docker_host, version="auto")) as engine:
        before = tags_of(engine, "hello")
        yield
        # (An engine that has built it before gives another name to the same image.)
        for tag in tags_of(engine, "hello") - before:
            engine.remove_image(tag, force=True)


def tags_of(engine: docker.APIClient, name: str) -> set[str]:
    return {tag for image in engine.images(name) for tag in image["RepoTags"]}


@pytest.mark.netns
@pytest.mark.docker
@pytest.mark.usefixtures("image_of_the_readme")
@pytest.mark.parametrize("name", sorted(ENGINE_PAGES))
def test_the_blocks_of_a_page_run_with_an_engine(name: str, docker_host: str, shell: Shell) -> None:
    [page] = [page for page in PAGES if page.stem == name]
    run(Block(page, 0, "console", f"$ export DOCKER_HOST={docker_host}"), shell)
    for block in runnable(page):
        run(block, shell)


def run(block: Block, shell: Shell) -> None:
    if block.mark == "file":
        path = shell.folder / block.value
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.content)
        path.chmod(0o755)
    elif block.mark == "node":
        [command] = commands_of(block)
        code, said = shell.start(command.text, block.value)
        assert code == 0, f"{block}: {said}"
    elif block.mark == "printed by":
        shell.wait_printed(block.content)
    elif block.language == "console":
        run_commands(block, shell)
    elif block.language == "python":
        (shell.folder / ".block.py").write_text(block.content)
        code, said = shell.run("python .block.py")
        assert code == 0, f"{block}: {said}"
    elif block.language == "yaml":
        check_functions(block, shell.folder)
    else:
        assert block.language in SHOWN, f"{block}: can't run {block.language!r}"


def run_commands(block: Block, shell: Shell) -> None:
    for command in commands_of(block):
        code, said = shell.run(command.text)
        assert code == 0, f"{block}: {command.text} ended with {code}: {said}"
        if command.output:
            expected = "\n".join(command.output)
            assert matches(command.output, said), (
                f"{block}: {command.text} printed\n{said}\nnot\n{expected}"
            )


def check_functions(block: Block, folder: Path) -> None:
    """A part of a file of functions, or all of it."""
    content = block.content
    if "apps:" not in content:
        content = f"apps:\n  - name: part\n{textwrap.indent(textwrap.dedent(content), '    ')}"
    assert yaml.safe_load(content)
    (folder / ".part.yaml").write_text(content)
    load_functions(folder / ".part.yaml")


def test_a_block_is_run_shown_or_says_why_not() -> None:
    left: dict[str, int] = {}
    for block in (block for page in PAGES for block in blocks_of(page)):
        if block.is_directive:
            continue
        if block.mark == "not run":
            left[block.value] = left.get(block.value, 0) + 1
        elif block.mark == "run by":
            test = (ROOT / block.value).read_text()
            reads = block.page.name in test and "read_text" in test
            assert reads, f"{block}: {block.value} does not read this page"
        elif block.mark != "file":
            assert block.language in RUN | SHOWN, f"{block}: {block.language!r}. {HOW}"
    assert left == NOT_RUN


def test_what_is_printed_is_compared() -> None:
    assert matches(["a ... c", "d"], "a b c\nd\n")
    assert not matches(["a ... c"], "a b d\n")
    assert not matches(["a"], "a\nb\n")


@pytest.mark.netns
def test_a_failing_command_is_noticed(shell: Shell) -> None:
    page = ROOT / "README.md"
    run(Block(page, 1, "console", "$ cd /\n$ pwd\n/\n"), shell)
    with pytest.raises(AssertionError, match="ended with 3"):
        run(Block(page, 1, "console", "$ (exit 3)\n"), shell)
    with pytest.raises(AssertionError, match="printed"):
        run(Block(page, 1, "console", "$ echo one\ntwo\n"), shell)
    with pytest.raises(AssertionError, match="cat: nowhere"):
        run(Block(page, 1, "console", "$ cat nowhere\n", "node", "9"), shell)
    assert os.listdir(shell.folder) != []
