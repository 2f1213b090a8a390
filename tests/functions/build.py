"""Builds the functions that tests and benchmarks call; results are kept in ``.cache/``.

Everything is keyed by a hash of its sources and appears under its final name only when it is
complete, so that neither an interrupted build nor two builds at once can leave a broken result.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
from docker.utils import parse_repository_tag

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".cache"
CFLAGS = ("-std=c11", "-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror")
SOURCE_LABEL = "hostler.test.source"
IMAGE_USER = 1000
IMPORT_TIMEOUT = 300
"""Seconds without a sign of life from the engine."""

FUNCTION = HERE / "hello_fdk"
FDK = "fdk==0.1.128"
SUITE = "trixie"
PYTHON = "3.13"
"""The Python of that suite: pip has to find wheels for it."""
PACKAGES = ("python3-minimal", "libpython3-stdlib")
FDK_CHANGES = (
    "ENV PYTHONPATH=/python",
    "WORKDIR /function",
    'ENTRYPOINT ["/python/bin/fdk", "/function/func.py", "handler"]',
)

_PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile")


class BuildFailed(Exception):
    """A tool is missing or failed; the text has its output."""


def fnt_path() -> Path:
    """The static binary of ``fnt``, compiled on first use."""
    return _fnt_path()


@functools.cache
def _fnt_path() -> Path:
    sources = sorted(HERE.glob("fnt*.[ch]"))
    target = CACHE / f"fnt-{_hash(CFLAGS, sources)}" / "fnt"
    if not target.exists():
        with _finished_later(target.parent) as partial:
            files = [str(path) for path in sources if path.suffix == ".c"]
            _run([_tool("cc", "gcc and libc6-dev"), *CFLAGS, "-o", str(partial / "fnt"), *files])
    return target


def docker_image(
    client_or_host: docker.APIClient | str,
    name: str = "hostler-test/fnt:latest",
    changes: Sequence[str] = (),
) -> str:
    """Import ``fnt`` as the only program of an image called ``name``; returns ``name``.

    ``changes`` are further Dockerfile instructions, like ``VOLUME /data``. An image of that name
    that was made of the same sources and changes is left alone.
    """
    binary = fnt_path()
    source = _hash([binary.parent.name, *changes], [Path(__file__)])
    with _client(client_or_host) as client:
        if _source_of(client, name) != source:
            rootfs = _small_rootfs({"fnt": binary.read_bytes()})
            _import(client, name, rootfs, source, ['ENTRYPOINT ["/fnt"]', *changes])
    return name


def fdk_image(
    client_or_host: docker.APIClient | str, name: str = "hostler-test/hello-fdk:latest"
) -> str:
    """Import the function ``hello_fdk`` on Debian, with Fn's own Python kit, as image ``name``.

    The first time it needs root, mmdebstrap, a Debian mirror and PyPI, and takes half a minute.
    """
    recipe = [inspect.getsource(step) for step in (_fdk_rootfs, _for_python_of_the_image, _debian)]
    source = _hash([*recipe, FDK, SUITE, PYTHON, *PACKAGES, *FDK_CHANGES], [FUNCTION / "func.py"])
    with _client(client_or_host) as client:
        if _source_of(client, name) != source:
            rootfs = _fdk_rootfs(CACHE / f"fdk-{source}")
            _import(client, name, rootfs, source, FDK_CHANGES)
    return name


def fdk_command() -> list[str]:
    """The same function as a command line for the process driver: the kit for this Python."""
    kit = CACHE / f"fdk-kit-{_hash([FDK, sys.version], [])}"
    if not kit.exists():
        with _finished_later(kit) as partial:
            _run([*_PIP, f"--target={partial}", FDK])
    fdk, function = str(kit / "bin" / "fdk"), str(FUNCTION / "func.py")
    return ["env", f"PYTHONPATH={kit}", sys.executable, fdk, function, "handler"]


# --- images ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _client(client_or_host: docker.APIClient | str) -> Iterator[docker.APIClient]:
    if not isinstance(client_or_host, str):
        yield client_or_host
        return
    client = docker.APIClient(base_url=client_or_host, version="auto", timeout=IMPORT_TIMEOUT)
    try:
        yield client
    finally:
        client.close()


def _source_of(client: docker.APIClient, name: str) -> str | None:
    try:
        image = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound:
        return None
    labels: dict[str, str] = image["Config"].get("Labels") or {}
    return labels.get(SOURCE_LABEL)


def _import(
    client: docker.APIClient,
    name: str,
    rootfs: bytes | Path,
    source: str,
    changes: Sequence[str],
) -> None:
    repository, tag = parse_repository_tag(name)
    changes = [*changes, f"LABEL {SOURCE_LABEL}={source}"]
    tag = tag or "latest"
    if isinstance(rootfs, bytes):
        answer = client.import_image_from_data(rootfs, repository, tag, changes=changes)
    else:
        answer = client.import_image_from_file(str(rootfs), repository, tag, changes=changes)
    if _source_of(client, name) != source:  # the engine reports failures inside a 200
        raise BuildFailed(f"the engine did not import {name}: {answer}")


def _small_rootfs(programs: dict[str, bytes]) -> bytes:
    """A root of executable files and of what a process may expect to find: user and /tmp."""
    passwd = f"root:x:0:0::/:/\nfn:x:{IMAGE_USER}:{IMAGE_USER}::/:/\n".encode()
    group = f"root:x:0:\nfn:x:{IMAGE_USER}:\n".encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder, mode in (("etc", 0o755), ("tmp", 0o1777)):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        files = [("etc/passwd", passwd, 0o644), ("etc/group", group, 0o644)]
        files += [(path, data, 0o755) for path, data in programs.items()]
        for path, data, mode in files:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _fdk_rootfs(target: Path) -> Path:
    """Debian with Python, the kit in /python and the function in /function, as a tar file."""
    rootfs = target / "rootfs.tar"
    if rootfs.exists():
        return rootfs
    with _finished_later(target) as partial, tempfile.TemporaryDirectory() as scratch:
        kit, function = Path(scratch, "python"), Path(scratch, "function")
        _run([*_PIP, f"--python-version={PYTHON}", "--only-binary=:all:", f"--target={kit}", FDK])
        _for_python_of_the_image(kit / "bin" / "fdk")
        os.chmod(scratch, 0o755)
        shutil.copytree(FUNCTION, function, ignore=shutil.ignore_patterns("__pycache__"))
        _debian(
            partial / rootfs.name,
            PACKAGES,
            f"copy-in {kit} {function} /",
            # Compiled here, because the function's root is read-only.
            'chroot "$1" python3 -m compileall -q /python /function',
        )
    return rootfs


def _for_python_of_the_image(script: Path) -> None:
    """pip names the Python that it runs on itself as the script's interpreter."""
    _, rest = script.read_text().split("\n", 1)
    script.write_text(f"#!/usr/bin/python3\n{rest}")


def _debian(tar: Path, packages: Sequence[str], *hooks: str) -> None:
    """Make ``tar`` a root of Debian with ``packages`` and a user; ``hooks`` are mmdebstrap's."""
    user = f"fn:x:{IMAGE_USER}:{IMAGE_USER}::/:/bin/sh"
    hooks = (*hooks, f'echo "{user}" >> "$1/etc/passwd"')
    _run(
        [
            _tool("mmdebstrap", "mmdebstrap"),
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            *(f"--customize-hook={hook}" for hook in hooks),
            SUITE,
            str(tar),
        ]
    )


# --- the cache -------------------------------------------------------------------------------


def _hash(words: Sequence[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for part in [word.encode() for word in words] + [path.read_bytes() for path in files]:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _finished_later(target: Path) -> Iterator[Path]:
    """A folder that becomes ``target`` if the block succeeds. If somebody else was faster,
    theirs stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o755)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BuildFailed(f"{name} is needed to build the test functions (Debian: {package})")
    return found


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}")


def main() -> None:
    """``python -m tests.functions.build fdk-image HOST | fdk-command``: what scripts ask for."""
    what, *rest = sys.argv[1:]
    if what == "fdk-image":
        sys.stdout.write(fdk_image(*rest))
    elif what == "fdk-command":
        sys.stdout.write(shlex.join(fdk_command()))
    else:
        sys.exit(f"unknown: {what}")


if __name__ == "__main__":
    main()
