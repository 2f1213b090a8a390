"""What the reference page and the command line tell about the settings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import attrs

from ._base import EnvConfig
from ._kinds import Kind


@attrs.frozen
class SettingInfo:
    """One setting."""

    field: str
    variable: str
    """"" = there is none, only code sets it."""
    default: Any
    takes: str
    doc: str


def describe(cls: type[EnvConfig]) -> tuple[SettingInfo, ...]:
    """The settings of ``cls`` in the order of the source, with the docstrings of the fields.

    Reads the source of ``cls``, so it is for tools, not for a running node. Raises `OSError`
    where there is none.
    """
    docs = _field_docs(cls)
    infos = []
    for field in attrs.fields(cls):
        kind: Kind = field.metadata["kind"]
        infos.append(
            SettingInfo(
                field.name, field.metadata["variable"], field.default, kind.takes, docs[field.name]
            )
        )
    return tuple(infos)


def _field_docs(cls: type) -> dict[str, str]:
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            docs[statement.target.id] = _docstring(after)
    return docs


def _docstring(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return inspect.cleandoc(str(statement.value.value))
    return ""
