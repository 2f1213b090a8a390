"""``hostler deploy DIR``: build the image of a function and put it on a server."""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs
import click

from ._completion import complete_app
from ._dockerfile import dockerfile_of
from ._exits import CommandFailed, run_command
from ._func_file import FuncFile, next_version, read_func_file, write_version
from ._options import folder_argument, json_option, server_option
from ._progress import progress
from ._publish import Deployed, check_app, publish
from ._show import print_json, print_table, say


@click.command()
@folder_argument(help="A directory with func.yaml.  [default: .]")
@click.option(
    "--app",
    "-a",
    "app_name",
    default="",
    shell_complete=complete_app,
    help="The app; made if new.",
)
@click.option(
    "--registry",
    envvar="FN_REGISTRY",
    show_envvar=True,
    metavar="PREFIX",
    default="",
    help="Prefix of the image's name: registry.example/team.",
)
@click.option("--push", is_flag=True, help="Push the image, for runners on other machines.")
@click.option(
    "--bump/--no-bump",
    default=True,
    show_default=True,
    help="Whether the version goes up by one.",
)
@click.option("--verbose", "-v", is_flag=True, help="Print what the build prints.")
@server_option
@json_option
def deploy(
    folder: Path,
    app_name: str,
    registry: str,
    push: bool,
    bump: bool,
    verbose: bool,
    server: str,
    as_json: bool,
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
    from hostler._declarations import Entry
    from hostler._document import read_document

    for folder in (func.folder, func.folder.parent):
        path = folder / "app.yaml"
        if path.exists():
            return Entry(str(path), read_document(path, "app's file")).name("an app", app=True)
    raise CommandFailed("which app? Name it by --app, or in an app.yaml: name: APP")


async def _make_image(func: FuncFile, image: str, push: bool, verbose: bool) -> None:
    from hostler.drivers.docker import build_image, push_image

    dockerfile = dockerfile_of(func)
    with progress(f"building {image}", verbose) as on_line:
        await build_image(os.environ, func.folder, image, dockerfile=dockerfile, on_line=on_line)
    if push:
        with progress(f"pushing {image}", verbose) as on_line:
            await push_image(os.environ, image, on_line=on_line)


def _print(done: Deployed, as_json: bool) -> None:
    if as_json:
        print_json(attrs.asdict(done))
        return
    say(f"deployed {done.app}/{done.function} ({done.image})")
    rows = [("invoke", done.endpoint), *(("trigger", url) for url in done.triggers)]
    print_table((), rows)
