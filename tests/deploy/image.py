"""Builds the project's image as docs/how-to/deploy.md does, but without a registry or PyPI inside.

The base is a small Debian with Python, made by mmdebstrap; the wheels are fetched outside. Both are
kept in ``.cache/``, keyed by what they are made of. The image itself is built each time: the engine
keeps its layers as long as no source changes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from tests.functions.build import CACHE, PYTHON, SUITE, _finished_later, _hash, _import, _run

ROOT = Path(__file__).parents[2]
BASE = "hostler-test/python:latest"
IMAGE = "hostler-test/hostler:latest"
SOURCES = (".dockerignore", "LICENSE", "README.md", "pyproject.toml", "deploy/Dockerfile")
_PACKAGES = ("python3", "python3-venv")


def build_image(client: docker.APIClient) -> str:
    """The name of an image of the sources as they are now."""
    _import_base(client)
    with _context() as context:
        lines = client.build(
            path=str(context),
            dockerfile="deploy/Dockerfile",
            tag=IMAGE,
            rm=True,
            decode=True,
            buildargs={"BASE": BASE, "PIP_OPTIONS": "--no-index --find-links wheels"},
        )
        told = [dict(line) for line in lines]
    failures = [line["error"] for line in told if "error" in line]
    output = "".join(line.get("stream", "") for line in told)
    assert not failures, f"{failures}\n{output}"
    return IMAGE


def _import_base(client: docker.APIClient) -> None:
    key = _hash([SUITE, *_PACKAGES], [])
    target = CACHE / f"python-{key}"
    if not target.exists():
        with _finished_later(target) as partial:
            make = ["mmdebstrap", "--quiet", "--variant=minbase"]
            _run([*make, f"--include={','.join(_PACKAGES)}", SUITE, str(partial / "rootfs.tar")])
    try:
        client.inspect_image(BASE)  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound:
        _import(client, BASE, target / "rootfs.tar", key, [])


@contextmanager
def _context() -> Iterator[Path]:
    """What a clone has, of the files that the image is made of, and the wheels."""
    with tempfile.TemporaryDirectory() as folder:
        for name in SOURCES:
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, Path(folder) / name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src", Path(folder) / "src", ignore=ignored)
        shutil.copytree(_wheels(), Path(folder) / "wheels")
        yield Path(folder)


def _wheels() -> Path:
    """All that the project needs, for the Python of the base."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needs = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        needs += extra
    target = CACHE / f"wheels-{_hash([PYTHON, *needs], [])}"
    if not target.exists():
        with _finished_later(target) as partial:
            download = [sys.executable, "-m", "pip", "download", "--quiet", f"--dest={partial}"]
            _run([*download, f"--python-version={PYTHON}", "--only-binary=:all:", *needs])
    return target
