"""``hostler deploy DIR``: build the image of a function and put it on a server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from ._completion import complete_app
from ._dockerfile import dockerfile_of
from ._exits import CommandFailed, run_command
from ._func_file import FuncFile, next_version, read_func_file, write_version
from ._options import DEFAULT_SERVER, Server
from ._publish import Deployed, check_app, publish
from ._show import console, print_json, print_table, say

if TYPE_CHECKING:
    from rich.console import Console

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A directory with func.yaml.", file_okay=False)
]
TAIL = 40
"""Lines of a build that failed that are shown where only its progress was."""


def deploy(
    folder: Folder = Path(),
    app_name: Annotated[
        str, typer.Option("--app", "-a", help="The app; made if new.", autocompletion=complete_app)
    ] = "",
    registry: Annotated[
        str,
        typer.Option(
            envvar="FN_REGISTRY",
            metavar="PREFIX",
            help="What comes before the name of the image: registry.example/team.",
        ),
    ] = "",
    push: Annotated[
        bool, typer.Option("--push", help="Push the image, for runners on other machines.")
    ] = False,
    bump: Annotated[
        bool, typer.Option("--bump/--no-bump", help="Whether the version goes up by one.")
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print what the build prints.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Build a directory's function and put it on a node.

    The image is made by the Docker engine of DOCKER_HOST. The app, the function and its triggers
    are made or changed to what func.yaml says; what it does not mention stays. The image is
    PREFIX/NAME:VERSION.
    """

    async def work() -> None:
        func = read_func_file(folder)
        app = app_name or _app_of(func)
        func = attrs.evolve(func, version=_version(func, bump))
        name = f"{func.name.lower()}:{func.version}"
        image = f"{registry.rstrip('/')}/{name}" if registry else name
        await check_app(server, app)
        await _make_image(func, image, push, verbose)
        if bump and func.path is not None:
            write_version(func.path, func.version)
        _print(await publish(server, app, func, image), as_json)

    run_command(work, server)


def _version(func: FuncFile, bump: bool) -> str:
    """A new one for each build: a runner keeps the hot containers of an image that it knows."""
    if func.path is None:  # where nobody keeps the last one
        return f"0.0.{time.time():.0f}"
    return next_version(func.version) if bump else func.version


def _app_of(func: FuncFile) -> str:
    """The app that ``app.yaml`` names, there or in the directory above (Fn's places)."""
    from hostler._declaration import Entry
    from hostler._document import read_document

    for folder in (func.folder, func.folder.parent):
        path = folder / "app.yaml"
        if path.exists():
            return Entry(str(path), read_document(path, "app's file")).name("an app", app=True)
    raise CommandFailed("which app? Name it by --app, or in an app.yaml: name: APP")


async def _make_image(func: FuncFile, image: str, push: bool, verbose: bool) -> None:
    from hostler.drivers.docker import build_image, push_image

    dockerfile = dockerfile_of(func)
    with _progress(f"building {image}", verbose) as on_line:
        await build_image(os.environ, func.folder, image, dockerfile=dockerfile, on_line=on_line)
    if push:
        with _progress(f"pushing {image}", verbose) as on_line:
            await push_image(os.environ, image, on_line=on_line)


@contextmanager
def _progress(what: str, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Tell on stderr how it goes: all lines, or the last one beside a spinner for people."""
    err = console(stderr=True)
    if verbose or not err.is_terminal:
        err.print(what, markup=False)
        yield _lines(err) if verbose else _nothing
        return
    last: list[str] = []
    with err.status(what) as status:

        def on_line(line: str) -> None:
            from rich.markup import escape

            last.append(line)
            del last[:-TAIL]
            status.update(f"{escape(what)}  [dim]{escape(line[:80])}")

        try:
            yield on_line
        except BaseException:
            status.stop()
            for line in last:
                err.print(line, markup=False)
            raise


def _lines(err: Console) -> Callable[[str], None]:
    return lambda line: err.print(line, markup=False)


def _nothing(line: str) -> None:
    pass


def _print(done: Deployed, as_json: bool) -> None:
    if as_json:
        print_json(attrs.asdict(done))
        return
    say(f"deployed {done.app}/{done.function} ({done.image})")
    rows = [("invoke", done.endpoint), *(("trigger", url) for url in done.triggers)]
    print_table((), rows)
