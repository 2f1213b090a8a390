"""The image of the containers that hold network name spaces, and its program."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import signal
import struct
import subprocess
import tarfile
import uuid
from pathlib import Path

import docker
import pytest

from hostler.drivers.docker.engine import open_engine
from hostler.drivers.docker.prefork import (
    MadeImage,
    PoolPlan,
    pause_files,
    pause_image,
    pause_program,
)


@pytest.mark.skipif(pause_program(platform.machine()) is None, reason="no program for this machine")
def test_the_program_sleeps_until_it_is_killed(tmp_path: Path) -> None:
    program = pause_program(platform.machine())
    assert program is not None
    with tarfile.open(fileobj=io.BytesIO(pause_files(program))) as tar:
        file = tar.extractfile("pause")
        assert file is not None
        path = tmp_path / "pause"
        path.write_bytes(file.read())
        path.chmod(tar.getmember("pause").mode)
    with subprocess.Popen([path]) as process:
        try:
            # A signal that is handled by nobody, and one that interrupts the sleep.
            for number in (signal.SIGCONT, signal.SIGWINCH):
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
            assert process.returncode is None
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("architecture", "machine"), [("x86_64", 62), ("aarch64", 183)])
def test_the_program_is_an_executable(architecture: str, machine: int) -> None:
    program = pause_program(architecture)
    assert program is not None
    kind, number = struct.unpack_from("<2H", program, 16)
    entry, headers = struct.unpack_from("<2Q", program, 24)
    offset, address = struct.unpack_from("<2Q", program, headers + 8)
    size, memory = struct.unpack_from("<2Q", program, headers + 32)
    assert (kind, number) == (2, machine)
    assert (offset, size, memory) == (0, len(program), len(program))
    assert address <= entry < address + size
    assert pause_program("s390x") is None


@pytest.mark.docker
async def test_all_runners_make_the_same_image(docker_host: str, engine: docker.APIClient) -> None:
    """Or each one that comes later would leave that of the one before without a name."""
    name = f"hostler-pause-{uuid.uuid4().hex}:1"
    program = pause_program(engine.info()["Architecture"])
    assert program is not None
    own = await open_engine({"DOCKER_HOST": docker_host})
    try:
        ids = []
        for _ in range(2):
            plan = PoolPlan(size=1, image=name, command=(), program=program)
            await MadeImage(own, plan).get()  # as of one that has seen none before
            ids.append(engine.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
        assert ids[0] == ids[1]
    finally:
        await own.aclose()
        engine.remove_image(name)


@pytest.mark.parametrize(("architecture", "named"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_what_is_in_the_image(architecture: str, named: str) -> None:
    program = pause_program(architecture)
    assert program is not None
    with tarfile.open(fileobj=io.BytesIO(pause_image("a:1", program))) as tar:
        files = {name: tar.extractfile(name) for name in tar.getnames()}
        read = {name: file.read() for name, file in files.items() if file is not None}
    [manifest] = json.loads(read["manifest.json"])
    assert manifest["RepoTags"] == ["a:1"]
    [layer] = manifest["Layers"]
    assert read[layer] == pause_files(program)
    config = json.loads(read[manifest["Config"]])
    assert (config["architecture"], config["os"]) == (named, "linux")
    digest = hashlib.sha256(read[layer]).hexdigest()
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
