"""How a function of a directory is started as a process of this machine."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from ._exits import CommandFailed
from ._func_file import FuncFile

_IN_IMAGE = "/function/"
"""Where the images of Fn's kits have the directory."""
_VENVS = (".venv", "venv")


def command_line(func: FuncFile) -> list[str]:
    """Program and arguments, in the function's directory.

    ``entrypoint`` and ``cmd`` of ``func.yaml`` are for the image; paths of it that have a
    counterpart here are replaced. Raises `CommandFailed`, which says what to install.
    """
    kind = func.runtime.rstrip("0123456789.")
    if kind == "python":
        return _python(func)
    if kind == "node":
        return _node(func)
    words = [_here(func, word) for word in _words(func)] or ["./func"]
    program = func.folder / words[0] if "/" in words[0] else shutil.which(words[0])
    if program is None or not Path(program).exists():
        raise CommandFailed(
            f"can't run {func.name}: there is no program {words[0]!r}; build it first, or name "
            "another one as entrypoint in func.yaml"
        )
    return [str(program), *words[1:]]


def _python(func: FuncFile) -> list[str]:
    """``/python/bin/fdk /function/func.py handler``, by the directory's virtual environment."""
    words = _words(func) or ["/python/bin/fdk", f"{_IN_IMAGE}func.py", "handler"]
    words = [_here(func, word) for word in words]
    if Path(words[0]).name == "fdk":
        words = [*_fdk(func), *words[1:]]
    # Of an image it is PYTHONPATH=/function:/python, too.
    return ["env", "PYTHONDONTWRITEBYTECODE=1", f"PYTHONPATH={func.folder}", *words]


def _fdk(func: FuncFile) -> list[str]:
    folders = [func.folder / name / "bin" for name in _VENVS]
    for folder in (*folders, Path(sys.executable).parent):
        if (folder / "fdk").exists():
            return [str(folder / "python"), str(folder / "fdk")]
    if found := shutil.which("fdk"):
        return [found]
    raise CommandFailed(
        f"can't run {func.name}: Fn's kit for Python is not there; in {func.folder}: "
        "python3 -m venv .venv && .venv/bin/pip install fdk"
    )


def _node(func: FuncFile) -> list[str]:
    words = [_here(func, word) for word in _words(func) or ["node", "func.js"]]
    if shutil.which(words[0]) is None:
        raise CommandFailed(f"can't run {func.name}: there is no program {words[0]!r}; install it")
    if (func.folder / "package.json").exists() and not (func.folder / "node_modules").exists():
        raise CommandFailed(
            f"can't run {func.name}: its packages are not installed; in {func.folder}: npm install"
        )
    return words


def _words(func: FuncFile) -> list[str]:
    try:
        return [*shlex.split(func.entrypoint), *shlex.split(func.cmd)]
    except ValueError as error:
        raise CommandFailed(f"{func.path}: entrypoint or cmd: {error}") from error


def _here(func: FuncFile, word: str) -> str:
    return str(func.folder / word.removeprefix(_IN_IMAGE)) if word.startswith(_IN_IMAGE) else word
