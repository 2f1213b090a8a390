"""The Dockerfile of a function whose directory has none: the steps that Fn's client takes."""

from __future__ import annotations

import json
import shlex

from ._exits import CommandFailed
from ._func_file import FuncFile

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
