"""Runners that live in containers of the engine that they use."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import msgspec
import pytest
import trio
import trio.testing

from hostler._concurrency.signal import IdleGate
from hostler.config import AgentConfig
from hostler.drivers.docker import instance, open_docker_driver
from hostler.drivers.docker.driver import remove_homeless
from hostler.drivers.docker.engine import open_engine
from hostler.drivers.docker.instance import container_in, find_home

from ...conftest import Logs
from .conftest import WAIT, containers
from .fake_engine import FakeEngine, error, nothing, value

ID = "0123456789abcdef" * 4
HOSTNAME = (
    f"706 690 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/a rw"
)


def elsewhere(line: str) -> str:
    return line.replace("/etc/hostname", "/mnt/other")


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        (f"689 1 0:65 / / ro - overlay overlay ro\n{HOSTNAME}\n", ID),
        (HOSTNAME.replace("/var/lib/docker", ""), ID),
        (elsewhere(HOSTNAME), ""),
        (HOSTNAME.replace(ID, "etc"), ""),
        ("", ""),
        ("what is this\n", ""),
    ],
)
def test_a_container_is_known_by_its_mounts(mounts: str, found: str) -> None:
    assert container_in(mounts) == found


async def home_with(
    fake_engine: FakeEngine, fake_environ: dict[str, str], path: Path, patch: pytest.MonkeyPatch
) -> str:
    patch.setattr(instance, "MOUNTS", str(path))
    engine = await open_engine(fake_environ)
    try:
        return await find_home(engine)
    finally:
        await engine.aclose()


async def test_only_an_engine_that_knows_the_container_is_believed(
    fake_engine: FakeEngine,
    fake_environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: Logs,
) -> None:
    mounts = tmp_path / "mounts"
    assert not await home_with(fake_engine, fake_environ, mounts, monkeypatch)
    assert len(logs.with_event("own container not found")) == 1
    mounts.write_text("")
    assert not await home_with(fake_engine, fake_environ, mounts, monkeypatch)
    mounts.write_text(HOSTNAME)
    inspect = f"GET /containers/{ID}/json"
    fake_engine.on(inspect, error(404, "No such container"))
    assert not await home_with(fake_engine, fake_environ, mounts, monkeypatch)
    fake_engine.on(inspect, error(403, "Forbidden"))
    assert not await home_with(fake_engine, fake_environ, mounts, monkeypatch)
    assert len(logs.with_event("own container not found")) == 2
    fake_engine.on(inspect, value({"State": {"Running": True, "StartedAt": "now"}}))
    assert await home_with(fake_engine, fake_environ, mounts, monkeypatch) == f"{ID} now"
    mounts.write_bytes(b"689 1 0:65 / /mnt/caf\xe9 rw - ext4 /dev/a rw\n" + HOSTNAME.encode())
    assert await home_with(fake_engine, fake_environ, mounts, monkeypatch) == f"{ID} now"


async def test_one_of_several_on_a_network_may_be_any_of_them(
    fake_engine: FakeEngine,
    fake_environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(HOSTNAME)
    inspected = value({"State": {"Running": True, "StartedAt": "now"}})
    fake_engine.on(f"GET /containers/{ID}/json", inspected)
    modes = ["bridge", f"container:{ID[::-1]}"]
    for mode, home in ((modes[0], f"{ID} now"), (f"container:{ID}", "")):
        rows = [{"Id": "a", "HostConfig": {"NetworkMode": each}} for each in [*modes, mode]]
        fake_engine.on("GET /containers/json", value([*rows, {"Id": "b"}]))
        assert await home_with(fake_engine, fake_environ, mounts, monkeypatch) == home


async def test_what_the_engine_does_not_tell_is_no_reason_to_remove(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    left = {"a": "own now", "b": "gone 1", "c": "refused 1", "d": "again 1", "e": "runs 1"}
    rows = [{"Id": name, "Labels": {"hostler-home": home}} for name, home in left.items()]
    labelled = value([*rows, {"Id": "f", "Labels": None}])
    fake_engine.on(r"GET /containers/json\?hostler-home", labelled)
    fake_engine.on("GET /containers/gone/json", error(404, "No such container"))
    fake_engine.on("GET /containers/refused/json", error(500, "trouble"))
    for name, started in (("again", "2"), ("runs", "1")):
        state = {"State": {"Running": True, "StartedAt": started}}
        fake_engine.on(f"GET /containers/{name}/json", value(state))
    fake_engine.on("DELETE /containers/[bd]", nothing)
    engine = await open_engine(fake_environ)
    await remove_homeless(engine, IdleGate(), "own now")
    await engine.aclose()
    removed = [line for line in fake_engine.seen if line.startswith("DELETE")]
    assert sorted(removed) == ["DELETE /containers/b", "DELETE /containers/d"]
    assert not [line for line in fake_engine.seen if "own" in line]


async def test_name_spaces_of_a_container_with_no_place_for_locks_tell_their_home(
    fake_engine: FakeEngine,
    fake_environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: Logs,
) -> None:
    """As one is whose file system can only be read."""
    mounts = tmp_path / "mounts"
    mounts.write_text(HOSTNAME)
    monkeypatch.setattr(instance, "MOUNTS", str(mounts))
    monkeypatch.setattr(tempfile, "tempdir", str(mounts))  # in which no folder can be made
    inspected = value({"State": {"Running": True, "StartedAt": "now"}})
    fake_engine.on(f"GET /containers/{ID}/json", inspected)
    facts = {"DefaultRuntime": "runc", "Architecture": "x86_64", "NCPU": 1}
    fake_engine.on("GET /info", value(facts))
    fake_engine.on("GET /images/hostler-pause:1/json", value({}))
    fake_engine.on("POST /containers/create", error(409, "Conflict"))
    with trio.fail_after(WAIT):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            await fake_engine.wait_for("POST /containers/create")
    request = next(r for r in fake_engine.requests if r.path.endswith("/containers/create"))
    assert msgspec.json.decode(request.body)["Labels"] == {"hostler-home": f"{ID} now"}
    assert not logs.with_event("can't lock")


# --- on a real engine ------------------------------------------------------------------------


@pytest.fixture
def homes(engine: docker.APIClient, fnt: str, tag: str) -> Iterator[list[str]]:
    """Two containers that run, as those of runners do."""
    made = []
    for _ in range(2):
        created = engine.create_container(fnt, environment={"FNT_START": "hang"})
        made.append(str(created["Id"]))
        engine.start(made[-1])
    yield made
    for name in made:
        engine.remove_container(name, force=True)
    for left in containers(engine, tag):
        engine.remove_container(left["Id"], force=True)


@pytest.mark.docker
async def test_an_engine_gives_those_that_join_a_network_the_same_file(
    engine: docker.APIClient, docker_host: str, fnt: str, homes: list[str]
) -> None:
    """So that the one which was joined says nothing of who has joined it."""
    host_config = engine.create_host_config(network_mode=f"container:{homes[0]}")
    joined = engine.create_container(
        fnt, environment={"FNT_START": "hang"}, host_config=host_config
    )["Id"]
    try:
        engine.start(joined)
        assert homes[0] in engine.inspect_container(joined)["HostnamePath"]
        own = await open_engine({"DOCKER_HOST": docker_host})
        assert await instance._is_shared(own, homes[0])
        assert not await instance._is_shared(own, homes[1])
        await own.aclose()
    finally:
        engine.remove_container(joined, force=True)


@pytest.mark.docker
async def test_name_spaces_of_a_runner_end_with_its_container(
    engine: docker.APIClient,
    docker_host: str,
    tag: str,
    homes: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has a tag of its own, as without any, and cannot see the other's locks."""
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(instance, "MOUNTS", str(mounts))

    def held(name: str) -> set[str]:
        return {one["Id"] for one in containers(engine, f"{tag}-{name}")}

    async with trio.open_nursery() as nursery:

        async def live(name: str, home: str, *, task_status: trio.TaskStatus[None]) -> None:
            mounts.write_text(HOSTNAME.replace(ID, home))
            config = AgentConfig(container_label_tag=f"{tag}-{name}", prepared_networks=1)
            environ = {"DOCKER_HOST": docker_host}
            async with open_docker_driver(config, environ=environ) as driver:
                with trio.fail_after(WAIT):
                    while (now := driver.statistics().prefork).free < now.size:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(live, "stays", homes[0])
        await nursery.start(live, "dies", homes[1])
        stay, left = held("stays"), held("dies")
        assert stay
        assert left
        own = await open_engine({"DOCKER_HOST": docker_host})
        await remove_homeless(own, IdleGate(), "")
        assert (held("stays"), held("dies")) == (stay, left)
        engine.restart(homes[1], timeout=0)
        await remove_homeless(own, IdleGate(), "")
        assert held("stays") == stay
        assert not held("dies") & left
        await own.aclose()
        nursery.cancel_scope.cancel()
