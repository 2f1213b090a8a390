"""The programs in docs/reference/store.md run."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "store.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_programs_of_the_page(program: str) -> None:
    names: dict[str, Callable[[], Awaitable[None]]] = {}
    exec(program, names)
    await names["main"]()
