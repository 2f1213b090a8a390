"""``func.yaml``: what Fn's kits and client say of a function in its directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import msgspec

from ..._declarations import Section
from ..._document import read_document
from ...errors import ConfigError
from ...rules import MAX_IDLE_TIMEOUT, MAX_MEMORY, MAX_TIMEOUT

NAMES = ("func.yaml", "func.yml")
FIRST_VERSION = "0.0.1"
"""Of a function that has none (Fn's)."""
_FIELDS = (
    *("schema_version", "name", "version", "runtime", "build_image", "run_image", "entrypoint"),
    *("cmd", "memory", "timeout", "idle_timeout", "config", "annotations", "triggers"),
)
_WITHOUT_EFFECT = (
    *("build", "content_type", "expects", "format", "namespace", "path", "shape", "type"),
)
"""Of Fn's, for others of its tools."""
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_VERSION_LINE = re.compile(r"^version:.*$", re.MULTILINE)


@attrs.frozen
class FuncTrigger:
    name: str
    source: str


@attrs.frozen(kw_only=True)
class FuncFile:
    """A directory with a function. Of a number, 0 is "not said"."""

    folder: Path
    path: Path | None
    """``None`` = the directory has no ``func.yaml``; all below was guessed."""
    name: str
    version: str = FIRST_VERSION
    runtime: str = ""
    build_image: str = ""
    run_image: str = ""
    entrypoint: str = ""
    cmd: str = ""
    memory: int = 0
    """MB."""
    timeout: int = 0
    """Seconds, as the next."""
    idle_timeout: int = 0
    config: Mapping[str, str] = attrs.Factory(dict)
    annotations: Mapping[str, msgspec.Raw] = attrs.Factory(dict)
    triggers: tuple[FuncTrigger, ...] = ()


def read_func_file(folder: Path) -> FuncFile:
    """What the directory says of its function, guessed from its files without a ``func.yaml``.

    Blocks on the disk. Raises `ConfigError`, which names file and field.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a directory")
    found = [folder / name for name in NAMES if (folder / name).exists()]
    if not found:
        return _guess(folder)
    path = found[0]
    document = read_document(path, "function's file") or {}
    entry = Section(str(path), document)
    entry.only(*_FIELDS, *_WITHOUT_EFFECT)

    def number(field: str, most: int, unit: str) -> int:
        return entry.number(field, 1, most, unit) if document.get(field) else 0

    return FuncFile(
        folder=folder,
        path=path,
        name=entry.name("a function") if document.get("name") else folder.name,
        version=_version(entry),
        runtime=entry.text("runtime") or _runtime_of(folder),
        build_image=entry.text("build_image"),
        run_image=entry.text("run_image"),
        entrypoint=entry.text("entrypoint"),
        cmd=entry.text("cmd"),
        memory=number("memory", MAX_MEMORY, "MB"),
        timeout=number("timeout", MAX_TIMEOUT, "seconds"),
        idle_timeout=number("idle_timeout", MAX_IDLE_TIMEOUT, "seconds"),
        config=entry.strings("config"),
        annotations=entry.annotations(),
        triggers=_triggers(entry),
    )


def next_version(version: str) -> str:
    """With the last number one higher."""
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


def write_version(path: Path, version: str) -> None:
    """Change only the version in a ``func.yaml``: comments and order are their author's."""
    text = path.read_text(encoding="utf-8")
    line = f"version: {version}"
    if _VERSION_LINE.search(text):
        text = _VERSION_LINE.sub(line, text, count=1)
    else:
        text = f"{text.rstrip()}\n{line}\n"
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _version(entry: Section) -> str:
    version = entry.text("version") or FIRST_VERSION
    if not _VERSION.fullmatch(version):
        raise entry.fail("version", f"{version!r} must be three numbers: {FIRST_VERSION}")
    return version


def _triggers(parent: Section) -> tuple[FuncTrigger, ...]:
    found = []
    for entry in parent.entries("triggers"):
        entry.only("name", "type", "source")
        if (kind := entry.text("type") or "http") != "http":
            raise entry.fail("type", f"{kind!r}: the only type of trigger is http")
        found.append(FuncTrigger(entry.name("a trigger", app=True), entry.source()))
    return tuple(found)


def _guess(folder: Path) -> FuncFile:
    runtime = _runtime_of(folder)
    if not runtime and not _is_program(folder / "func") and not (folder / "Dockerfile").exists():
        raise ConfigError(
            f"{folder} has no function: make a func.yaml, or func.py (with Fn's fdk), "
            "func.js (with @fnproject/fdk), or an executable named func"
        )
    return FuncFile(folder=folder, path=None, name=folder.name, runtime=runtime)


def _runtime_of(folder: Path) -> str:
    if (folder / "func.py").exists():
        return "python"
    return "node" if (folder / "func.js").exists() else ""


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
