"""The function ``hello_node`` as an image; see `build`."""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from pathlib import Path

import docker

from . import build

FUNCTION = build.HERE / "hello_node"
FDK = "@fnproject/fdk@0.0.76"
PACKAGES = ("nodejs",)
CHANGES = ("WORKDIR /function", 'ENTRYPOINT ["node", "func.js"]')


def node_image(
    client_or_host: docker.APIClient | str, name: str = "hostler-test/hello-node:latest"
) -> str:
    """Import the function ``hello_node`` on Debian, with Fn's own Node kit, as image ``name``.

    The first time it needs root, npm, mmdebstrap, a Debian mirror and npm's registry, and takes
    half a minute. Raises `build.BuildFailed`.
    """
    recipe = [inspect.getsource(step) for step in (_rootfs, build._debian)]
    words = [*recipe, FDK, build.SUITE, *PACKAGES, *CHANGES]
    source = build._hash(words, [FUNCTION / "func.js"])
    with build._client(client_or_host) as client:
        if build._source_of(client, name) != source:
            rootfs = _rootfs(build.CACHE / f"node-{source}")
            build._import(client, name, rootfs, source, CHANGES)
    return name


def _rootfs(target: Path) -> Path:
    """Debian with Node, and the function with the kit beside it in /function, as a tar file."""
    rootfs = target / "rootfs.tar"
    if rootfs.exists():
        return rootfs
    npm = build._tool("npm", "npm")
    options = ("--no-audit", "--no-fund", "--ignore-scripts")
    with build._finished_later(target) as partial, tempfile.TemporaryDirectory() as scratch:
        function = Path(scratch, "function")
        os.chmod(scratch, 0o755)
        shutil.copytree(FUNCTION, function)
        build._run([npm, "install", *options, "--prefix", str(function), FDK])
        build._debian(partial / rootfs.name, PACKAGES, f"copy-in {function} /")
    return rootfs
