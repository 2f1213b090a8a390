"""The shell's completion of the command line: its script, and where that goes."""

from __future__ import annotations

from pathlib import Path

import attrs
import click
import shellingham
from click.shell_completion import get_completion_class

_VARIABLE = "_HOSTLER_COMPLETE"
"""By which the script asks."""


@attrs.frozen
class _Place:
    """Below the home directory."""

    script: str
    settings: str = ""
    """A file of the shell that has to have ``line``."""
    line: str = ""


_PLACES = {
    "bash": _Place(
        ".bash_completions/hostler.sh", ".bashrc", "source ~/.bash_completions/hostler.sh"
    ),
    "zsh": _Place(".zfunc/_hostler", ".zshrc", "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
    "fish": _Place(".config/fish/completions/hostler.fish"),
}


def completion_script(app: click.Command) -> str:
    """For the shell that the process runs in."""
    return _script(app, _shell())


def install_completion(app: click.Command) -> str:
    """Write the script to where that shell reads it, and say what was done."""
    shell = _shell()
    place, home = _PLACES[shell], Path.home()
    try:
        _write(home / place.script, _script(app, shell))
        if place.line:
            _add_line(home / place.settings, place.line.encode())
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    return (
        f"{shell} completion installed in {home / place.script}\n"
        "Completion will take effect once you restart the terminal"
    )


def _shell() -> str:
    name: str
    try:
        name, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        name = "this one"
    if name not in _PLACES:
        raise click.ClickException(f"completion exists for {', '.join(_PLACES)}, not for {name}")
    return name


def _script(app: click.Command, shell: str) -> str:
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(app, {}, "hostler", _VARIABLE).source()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _add_line(path: Path, line: bytes) -> None:
    """Unless it is there. What else is there stays, byte for byte."""
    text = path.read_bytes() if path.exists() else b""
    if line not in text.splitlines():
        begin = b"\n" if text and not text.endswith(b"\n") else b""
        with path.open("ab") as file:
            file.write(begin + line + b"\n")
