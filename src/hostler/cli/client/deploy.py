"""`hostler deploy`: Dockerfile, build, push, publish."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from ...datastore import AppFilter, FnFilter, FnPatch, TriggerFilter, TriggerPatch
from ...models import App, Fn, Trigger
from ...rules import check_new_app
from ..options import bundle
from .errors import CommandFailed, run_command
from .func_file import FuncFile, FuncTrigger, next_version, read_func_file, write_version
from .names import called
from .options import complete_app, folder_argument, json_option, server_option
from .output import FN_ENDPOINT, TRIGGER_ENDPOINT, field_of, print_json, print_table, printable, say

if TYPE_CHECKING:
    from ...api_client import ApiClient


@attrs.frozen
class ImageOptions:
    """How the image is made."""

    registry: str
    push: bool
    bump: bool
    verbose: bool


@click.command()
@folder_argument(help="A directory with func.yaml.  [default: .]")
@click.option(
    "--app",
    "-a",
    "app_name",
    default="",
    shell_complete=complete_app,
    help="Name of the app; created if it does not exist.",
)
@bundle(
    ImageOptions,
    "options",
    click.option(
        "--registry",
        envvar="FN_REGISTRY",
        show_envvar=True,
        metavar="PREFIX",
        default="",
        help="Prefix of the image's name, such as registry.example/team.",
    ),
    click.option(
        "--push", is_flag=True, help="Push the image, so that other machines can pull it."
    ),
    click.option(
        "--bump/--no-bump",
        default=True,
        show_default=True,
        help="Raise the last number of the version by one.",
    ),
    click.option("--verbose", "-v", is_flag=True, help="Print the output of the build."),
)
@server_option
@json_option
def deploy(folder: Path, app_name: str, options: ImageOptions, server: str, as_json: bool) -> None:
    """Build the function in a directory and deploy it to a node.

    The Docker engine of DOCKER_HOST builds the image PREFIX/NAME:VERSION. The app, the function and
    its triggers are created, or changed to what func.yaml says; what it does not mention stays.
    """

    async def work() -> None:
        func = read_func_file(folder)
        app = app_name or _app_of(func)
        func = attrs.evolve(func, version=_version(func, options.bump))
        name = f"{func.name.lower()}:{func.version}"
        image = f"{options.registry.rstrip('/')}/{name}" if options.registry else name
        await check_app(server, app)
        await _make_image(func, image, options)
        if options.bump and func.path is not None:
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
    from ..._declarations import Section
    from ..._document import read_document

    for folder in (func.folder, func.folder.parent):
        path = folder / "app.yaml"
        if path.exists():
            return Section(str(path), read_document(path, "app's file")).name("an app", app=True)
    raise CommandFailed("which app? Name it with --app, or in an app.yaml: name: APP")


async def _make_image(func: FuncFile, image: str, options: ImageOptions) -> None:
    from ...drivers.docker import build_image, push_image

    dockerfile = dockerfile_of(func)
    with progress(f"building {image}", options.verbose) as on_line:
        await build_image(os.environ, func.folder, image, dockerfile=dockerfile, on_line=on_line)
    if options.push:
        with progress(f"pushing {image}", options.verbose) as on_line:
            await push_image(os.environ, image, on_line=on_line)


def _print(done: Deployed, as_json: bool) -> None:
    if as_json:
        print_json(attrs.asdict(done))
        return
    say(f"deployed {done.app}/{done.function} ({done.image})")
    rows = [("invoke", done.endpoint), *(("trigger", url) for url in done.triggers)]
    print_table((), rows)


@attrs.frozen(kw_only=True)
class Deployed:
    """What there is now."""

    app: str
    function: str
    version: str
    image: str
    endpoint: str
    triggers: list[str]
    """The URLs of those that ``func.yaml`` has."""


async def check_app(server: str, name: str) -> None:
    """Before minutes of building: raises what `publish` would for a bad name of an app, and if
    the server does not answer. Changes nothing."""
    from ...api_client import open_api_client
    from ...config import ApiConfig

    check_new_app(App(id="", name=name))
    async with open_api_client(server, ApiConfig.from_env()) as api:
        await api.apps.list(AppFilter(name=name))


async def publish(server: str, app_name: str, func: FuncFile, image: str) -> Deployed:
    """One change after the other: after a failure some are made, and another try makes the rest."""
    from ...api_client import open_api_client
    from ...config import ApiConfig

    async with open_api_client(server, ApiConfig.from_env()) as api:
        app = await _app(api, app_name)
        fn = await _fn(api, app, func, image)
        triggers = [await _trigger(api, fn, wanted) for wanted in func.triggers]
        fn = await api.fns.get(fn.id)
    return Deployed(
        app=app.name,
        function=fn.name,
        version=func.version,
        image=image,
        endpoint=field_of(fn, FN_ENDPOINT),
        triggers=[field_of(trigger, TRIGGER_ENDPOINT) for trigger in triggers],
    )


async def _app(api: ApiClient, name: str) -> App:
    found = called(name, await api.apps.list(AppFilter(name=name)))
    return found[0] if found else await api.apps.create(App(id="", name=name))


async def _fn(api: ApiClient, app: App, func: FuncFile, image: str) -> Fn:
    where = FnFilter(app_id=app.id, name=func.name)
    found = called(func.name, await api.fns.list(where))
    if found:
        patch = FnPatch(
            image=image,
            config=func.config,
            annotations=func.annotations,
            memory=func.memory,
            timeout=func.timeout,
            idle_timeout=func.idle_timeout,
        )
        return await api.fns.update(found[0].id, patch)
    new = Fn(
        id="",
        name=func.name,
        app_id=app.id,
        image=image,
        config=dict(func.config),
        annotations=dict(func.annotations),
        memory=func.memory,
        timeout=func.timeout,
        idle_timeout=func.idle_timeout,
    )
    return await api.fns.create(new)


async def _trigger(api: ApiClient, fn: Fn, wanted: FuncTrigger) -> Trigger:
    where = TriggerFilter(app_id=fn.app_id, name=wanted.name)
    found = called(wanted.name, await api.triggers.list(where))
    if found:
        patch = TriggerPatch(fn_id=fn.id, source=wanted.source)
        changed = await api.triggers.update(found[0].id, patch)
    else:
        new = Trigger(
            id="",
            name=wanted.name,
            app_id=fn.app_id,
            fn_id=fn.id,
            type="http",
            source=wanted.source,
        )
        changed = await api.triggers.create(new)
    return await api.triggers.get(changed.id)


PYTHON_IMAGES = ("fnproject/python:3.11-dev", "fnproject/python:3.11")

NODE_IMAGES = ("fnproject/node:20-dev", "fnproject/node:20")
"""Fn's images to build in and to run in, where ``func.yaml`` names none."""

PYTHON_ENTRYPOINT = "/python/bin/fdk /function/func.py handler"
NODE_ENTRYPOINT = "node func.js"

_READABLE = "RUN chmod -R o+rX /function"
"""Functions run as a user of their own. (Fn's client leaves out the X, for directories.)"""


def dockerfile_of(func: FuncFile) -> str:
    """The text; "" = the directory has one. Raises `CommandFailed` for a runtime whose build is
    not known here."""
    if (func.folder / "Dockerfile").exists():
        return ""
    kind = func.runtime.rstrip("0123456789.")  # python3.11 is python
    if kind == "python":
        return _text(func, PYTHON_IMAGES, _python(func), PYTHON_ENTRYPOINT)
    if kind == "node":
        return _text(func, NODE_IMAGES, _node(func), NODE_ENTRYPOINT)
    raise CommandFailed(
        f"can't build {func.name}: no Dockerfile in {func.folder}, and runtime "
        f"{func.runtime or '(none)'!r} is not python or node; write a Dockerfile"
    )


def _python(func: FuncFile) -> tuple[list[str], list[str]]:
    build = ["RUN mkdir -p /python"]
    has_requirements = (func.folder / "requirements.txt").exists()
    if not (has_requirements or func.build_image or func.run_image or func.entrypoint):
        raise CommandFailed(
            f"can't build {func.name}: without a requirements.txt in {func.folder} its image has "
            "no kit; write one with the line: fdk"
        )
    if has_requirements:
        build += [
            "ADD requirements.txt /function/",
            "RUN pip3 install --target /python/ --no-cache --no-cache-dir -r requirements.txt",
        ]
    build += ["ADD . /function/", f"{_READABLE} /python"]
    run = [
        "COPY --from=build-stage /python /python",
        "COPY --from=build-stage /function /function",
        "ENV PYTHONPATH=/function:/python",
    ]
    return build, run


def _node(func: FuncFile) -> tuple[list[str], list[str]]:
    build = ["ADD . /function/"]
    if (func.folder / "package.json").exists():
        build += ["RUN npm install"]
    build += [_READABLE]
    return build, ["COPY --from=build-stage /function /function"]


def _text(
    func: FuncFile,
    images: tuple[str, str],
    steps: tuple[list[str], list[str]],
    entrypoint: str,
) -> str:
    build, run = steps
    run_image = func.run_image or func.build_image or images[1]
    lines = [
        f"FROM {func.build_image or images[0]} AS build-stage",
        "WORKDIR /function",
        *build,
        f"FROM {run_image}",
        "WORKDIR /function",
        *run,
        f"ENTRYPOINT {json.dumps(shlex.split(func.entrypoint or entrypoint))}",
    ]
    if func.cmd:
        lines.append(f"CMD {json.dumps(shlex.split(func.cmd))}")
    return "\n".join(lines) + "\n"


TAIL = 40
"""Lines of a step that failed that are shown where only the last one was."""

_TO_START = "\r\033[K"
"""Of the line, which is cleared."""


@contextmanager
def progress(what: str, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Yields what to call with each line that the step prints.

    For people that is one line, which changes; if the step fails, its last `TAIL`. ``verbose``:
    all lines. Where nobody looks: only ``what``.
    """
    if verbose or not sys.stderr.isatty():
        _put(f"{what}\n")
        yield _print_line if verbose else _nothing
        return
    last: deque[str] = deque(maxlen=TAIL)

    def on_line(line: str) -> None:
        last.append(line)
        _show(f"{what}  {line}")

    _show(what)
    try:
        yield on_line
    except BaseException:
        _put(_TO_START)
        for line in last:
            _print_line(line)
        raise
    _put(_TO_START)


def _show(text: str) -> None:
    columns = shutil.get_terminal_size().columns
    _put(_TO_START + printable(text)[: columns - 1])


def _print_line(line: str) -> None:
    _put(f"{printable(line)}\n")


def _nothing(line: str) -> None:
    pass


def _put(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
