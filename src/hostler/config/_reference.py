"""The reference page of the settings, made of the settings themselves."""

from __future__ import annotations

from ._agent import AgentConfig
from ._base import EnvConfig
from ._describe import SettingInfo, describe
from ._node import NodeConfig
from ._placement import LBConfig, PlacerConfig
from ._pool import PoolConfig

_HEAD = """\
# Settings

Each setting is an environment variable and, in code, a field of a frozen class: `X.from_env()` or
`X(field=value)`. With `NAME_FILE` set instead of `NAME`, the value is read from that file. A value
that can't be used ends the start with one line that names the variable, the value and what it
takes. Names, defaults and parsing are Fn's, unless a description says "ours".

This page is made by `python -m hostler.config`.
"""

_SECTIONS: tuple[tuple[str, type[EnvConfig]], ...] = (
    ("Nodes and front end: `NodeConfig`", NodeConfig),
    ("LB agent: `LBConfig`", LBConfig),
    ("Placers: `PlacerConfig`", PlacerConfig),
    ("Runner pools: `PoolConfig`", PoolConfig),
    ("Runner's agent and drivers: `AgentConfig`", AgentConfig),
)


def reference_page() -> str:
    """Markdown, one table for each class of settings."""
    return "\n".join([_HEAD, *(_section(title, kind) for title, kind in _SECTIONS)])


def _section(title: str, kind: type[EnvConfig]) -> str:
    rows = [_row(info) for info in describe(kind)]
    head = ["| variable | field | takes | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {title}", "", *head, *rows, ""])


def _row(info: SettingInfo) -> str:
    variable = f"`{info.variable}`" if info.variable else "(in code only)"
    cells = (variable, f"`{info.field}`", info.takes, " ".join(info.doc.split()).replace("``", "`"))
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
