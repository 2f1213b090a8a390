"""The cache of built functions, and the images on a real engine."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import docker
import pytest

from . import build


def test_fnt_is_built_once() -> None:
    path = build.fnt_path()
    assert os.access(path, os.X_OK)
    assert build.fnt_path() == path
    assert path.stat().st_size < 1_000_000


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "thing"
    with contextlib.suppress(OSError), build._finished_later(target) as partial:
        (partial / "file").write_text("incomplete")
        raise OSError
    assert target.parent.is_dir()
    assert not list(target.parent.iterdir())


def test_of_two_builds_at_once_the_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "thing"
    with build._finished_later(target) as slow:
        (slow / "file").write_text("second")
        with build._finished_later(target) as fast:
            (fast / "file").write_text("first")
    assert (target / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_concurrent_builds_of_fnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CACHE", tmp_path)
    build._fnt_path.cache_clear()
    try:
        threads = [threading.Thread(target=build._fnt_path.__wrapped__) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (only,) = tmp_path.iterdir()
        assert [path.name for path in only.iterdir()] == ["fnt"]
    finally:
        build._fnt_path.cache_clear()


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(build.BuildFailed, match=r"cc is needed .*libc6-dev"):
        build._tool("cc", "gcc and libc6-dev")


def test_a_failing_tool_is_quoted() -> None:
    with pytest.raises(build.BuildFailed, match=r"sh -c .* failed \(3\):\nwhy"):
        build._run(["sh", "-c", "echo why; exit 3"])


def test_the_hash_tells_parts_apart(tmp_path: Path) -> None:
    assert build._hash(["ab", "c"], []) != build._hash(["a", "bc"], [])
    file = tmp_path / "file"
    file.write_text("one")
    before = build._hash([], [file])
    file.write_text("two")
    assert build._hash([], [file]) != before


@pytest.mark.docker
def test_docker_image(docker_host: str) -> None:
    name = "hostler-test/build-test:one"
    client = docker.APIClient(base_url=docker_host, version="auto")
    try:
        assert build.docker_image(client, name, ["VOLUME /data"]) == name
        image = _inspect(client, name)
        assert image["Config"]["Entrypoint"] == ["/fnt"]
        assert image["Config"]["Volumes"] == {"/data": {}}

        build.docker_image(docker_host, name, ["VOLUME /data"])
        assert _inspect(client, name)["Id"] == image["Id"]

        build.docker_image(docker_host, name)
        assert not _inspect(client, name)["Config"].get("Volumes")
    finally:
        client.remove_image(name)
        client.close()


@pytest.mark.docker
def test_fnt_runs_without_any_rights(docker_host: str) -> None:
    """As the runner starts functions; here it only starts, fails by its settings and tells."""
    image = build.docker_image(docker_host)
    assert _output_of(docker_host, image) == b"fnt: FN_FORMAT must be http-stream, not unset\n"


@pytest.mark.docker
@pytest.mark.slow
def test_the_kit_runs_without_any_rights(docker_host: str) -> None:
    image = build.fdk_image(docker_host)
    assert b"FN_LISTENER is not set" in _output_of(docker_host, image)


def _inspect(client: docker.APIClient, name: str) -> dict[str, Any]:
    image: dict[str, Any] = client.inspect_image(name)  # type: ignore[no-untyped-call]
    return image


def _output_of(docker_host: str, image: str) -> bytes:
    client = docker.APIClient(base_url=docker_host, version="auto")
    config = client.create_host_config(
        cap_drop=["ALL"], read_only=True, security_opt=["no-new-privileges"], init=True
    )
    container = client.create_container(image, user="1000:1000", host_config=config)["Id"]
    try:
        client.start(container)
        assert client.wait(container)["StatusCode"] != 0
        output = client.logs(container, stderr=True)
        assert isinstance(output, bytes)
        return output
    finally:
        client.remove_container(container, force=True, v=True)
        client.close()
