"""Wrong usage of the command line: the last line says what is wrong, and the exit code is 2.
Interrupted, it is 130."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from hostler.cli import app
from hostler.cli import command as command_module


def commands(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        inner = click.Context(command, parent=ctx, info_name=name)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        else:
            yield inner.command_path, command


HEADER = "Invalid value for '--header' / '-H'"
ANNOTATION = "Invalid value for '--annotation'"
SERVER = "Invalid value for '--server' (env var: 'FN_API_URL')"
NO_URL = "is no URL of a node: takes http(s)://host:port"
COMMANDS = dict(commands(app, click.Context(app, info_name="hostler")))


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_has_a_parameter_for_each_option(path: str) -> None:
    command = COMMANDS[path]
    assert command.callback is not None
    options = {option.name for option in command.params if option.expose_value}
    parameters = inspect.signature(command.callback).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        options &= set(parameters)  # the others are fields of what the command makes
    assert options == {name for name, each in parameters.items() if each.kind != each.VAR_KEYWORD}
    assert command.help
    assert all(option.help for option in command.params)
    done = CliRunner().invoke(app, [*path.split()[1:], "--help"], prog_name="hostler")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"Usage: {path} " in done.stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("servee", "No such command 'servee'. Did you mean 'serve'?"),
        ("app creat", "No such command 'creat'. Did you mean 'create'?"),
        ("lb --worker 3", "No such option '--worker'. Did you mean '--workers'?"),
        ("lb extra", "Got unexpected extra argument (extra)"),
        ("lb --workers x", "Invalid value for '--workers': 'x' is not a valid integer."),
        ("serve --grace x", "Invalid value for '--grace': 'x' is not a valid number."),
        ("serve --grace nan", "Invalid value for '--grace': 'nan' is not a valid number."),
        ("serve --grace -1", "Invalid value for '--grace': -1.0 is not in the range x>=0."),
        ("runner --ready-fd x", "Invalid value for '--ready-fd': 'x' is not a valid integer."),
        ("app inspect", "Missing argument 'APP'."),
        ("invoke shop", "Missing argument 'FN'."),
        ("fn create shop", "Missing argument 'NAME'."),
        ("trigger create shop pay web", "Missing option '--source'."),
        ("app create shop -c", "Option '-c' requires an argument."),
        ("app create shop -c x", "Invalid value for '--config' / '-c': 'x' is not KEY=VALUE"),
        ("app update shop -c =x", "Invalid value for '--config' / '-c': '=x' is not KEY=VALUE"),
        ("app update shop --annotation x", "Invalid value for '--annotation': 'x' is not KEY=JSON"),
        ("fn update a f -m x", "Invalid value for '--memory' / '-m': 'x' is not a valid integer."),
        (
            "fn update a f -m -1",
            "Invalid value for '--memory' / '-m': -1 is not in the range x>=0.",
        ),
        ("logs -n 1.5", "Invalid value for '--lines' / '-n': '1.5' is not a valid integer."),
        ("logs a f --fn-id x", "Invalid value for '--fn-id': takes a name or an id, not both"),
        ("invoke a f -H Content-Length:5", f"{HEADER}: Content-Length is set from the body"),
        ("invoke a f -H x:\u00fc", f"{HEADER}: '\u00fc' has characters that no header can have"),
        ("invoke a f -H (x):y", f"{HEADER}: '(x):y' is not NAME:VALUE"),
        ("app update a --annotation x=\udcff", f"{ANNOTATION}: 'x=\\udcff' is not UTF-8"),
        ("app list --server http://me:secret@a:x", f"{SERVER}: 'http://a:x' {NO_URL}"),
        ("app list --server ftp://x", f"{SERVER}: 'ftp://x' {NO_URL}"),
        ("status --server http://[::1", f"{SERVER}: 'http://[::1' {NO_URL}"),
        ("logs --api http://a:99999", f"Invalid value for '--api': 'http://a:99999' {NO_URL}"),
        ("invoke a f -H x", "Invalid value for '--header' / '-H': 'x' is not NAME:VALUE"),
        (f"run {__file__}", f"Invalid value for '[DIR]': Directory '{__file__}' is a file."),
    ],
)
def test_it_says_what_is_wrong(line: str, message: str) -> None:
    fails(line.split(), message)


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        (["app", "delete", "", "--yes"], "APP"),
        (["app", "create", ""], "NAME"),
        (["fn", "delete", "shop", "", "--yes"], "FN"),
        (["trigger", "delete", "shop", "pay", "", "--yes"], "TRIGGER"),
        (["trigger", "list", "shop", ""], "[FN]"),
        (["invoke", "", "pay"], "APP"),
        (["logs", ""], "[APP]"),
    ],
)
def test_an_empty_name_is_not_that_of_the_first_there_is(line: list[str], argument: str) -> None:
    fails(line, f"Invalid value for '{argument}': a name can't be empty")


def fails(line: list[str], message: str) -> None:
    done = CliRunner().invoke(app, line, prog_name="hostler")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"Error: {message}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", ["", "app", "fn", "trigger"])
def test_without_arguments_there_is_help(line: str) -> None:
    done = CliRunner().invoke(app, line.split(), prog_name="hostler")
    assert done.exit_code == 2
    assert "\nCommands:\n" in done.output


def test_interrupted_while_it_is_loaded_a_command_ends_as_one_that_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_module, "import_module", interrupted)
    group = command_module.LazyGroup("hostler", places={"serve": ".commands._serve:serve"})
    done = CliRunner().invoke(group, ["serve"])
    assert (done.exit_code, done.output) == (130, "")
