"""The fenced blocks of the documentation, and what is to be done with each.

A comment before a block says what it is, where its language does not:

* ``<!-- file: NAME -->``       the content of a file that later blocks use
* ``<!-- node: PORT -->``       a command that stays; the next block waits until it listens on PORT
* ``<!-- printed by: node -->`` what that command prints some time later
* ``<!-- run by: TEST -->``     another test takes it from the page and runs it
* ``<!-- not run: REASON -->``  it can't be run here
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.parent.name != "made"]
_MARK = re.compile(r"<!-- (file|node|printed by|run by|not run): (.+) -->")


@attrs.frozen
class Block:
    page: Path
    line: int
    language: str
    content: str
    mark: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_directive(self) -> bool:
        """Of Sphinx, not of the reader."""
        return self.language.startswith("{")


@attrs.define
class Command:
    """A line behind ``$``, with its continuation lines, and what it prints."""

    text: str
    output: list[str] = attrs.Factory(list)


def blocks_of(page: Path) -> list[Block]:
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    mark = value = ""
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "html_block" and (found := _MARK.match(token.content)):
            mark, value = found.groups()
        elif token.type == "fence":
            assert token.map is not None
            yield Block(page, token.map[0] + 1, token.info, token.content, mark, value)
            mark = value = ""
        elif token.type in ("inline", "heading_open"):
            assert not mark, f"{page}: there is no block behind {mark}: {value}"


def commands_of(block: Block) -> Sequence[Command]:
    """Of a ``console`` block. A line that ends with a backslash goes on in the next."""
    commands: list[Command] = []
    continued = False
    for line in block.content.splitlines():
        if continued:
            commands[-1].text += f"\n{line}"
        elif line.startswith("$ "):
            commands.append(Command(line[2:]))
        elif commands:
            commands[-1].output.append(line)
            continue
        else:
            raise AssertionError(f"{block}: there is no $ before {line!r}")
        continued = line.endswith("\\")
    assert commands, f"{block}: no commands"
    return commands


def matches(expected: Sequence[str], printed: str) -> bool:
    """Whether it is what the page shows, where ``...`` stands for anything."""
    pattern = re.escape("\n".join(expected).strip()).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
