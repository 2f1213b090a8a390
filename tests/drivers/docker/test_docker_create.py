"""What the engine makes of the create options (reference 04 §3.2), by inspection."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import docker
import pytest
import trio

from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerDriver, open_docker_driver
from hostler.errors import HostlerError, ImageWithVolume, ServerBusy

from .conftest import WAIT, Bench, containers

pytestmark = pytest.mark.docker


async def created(driver: DockerDriver, task: ContainerTask, engine: docker.APIClient) -> Any:
    """The engine's view of the task's container, which is removed again."""
    cookie = await driver.create_cookie(task)
    try:
        assert await cookie.validate_image() is False
        await cookie.create_container()
        return engine.inspect_container(task.id)
    finally:
        await cookie.aclose()


async def test_every_option(bench: Bench) -> None:
    task = bench.task(
        command="one two",
        memory=64 << 20,
        cpus=250,
        tmpfs_size_mb=3,
        tmpfs_inodes=100,
        pids=20,
        open_files=200,
        locked_memory=65536,
        pending_signals=5000,
        message_queue=819200,
    )
    found = await created(bench.driver, task, bench.engine)
    config, host = found["Config"], found["HostConfig"]
    assert found["Name"] == f"/{task.id}"
    assert config["Image"] == bench.image
    assert config["Cmd"] == ["one", "two"]
    assert set(config["Env"]) >= {f"{name}={value}" for name, value in task.env.items()}
    assert config["User"] == "1000:1000"
    assert config["Hostname"] == socket.gethostname()
    assert config["Labels"]["fn-agent-classifier"] == bench.tag
    assert config["Labels"]["fn-agent-instance"] == bench.driver.instance_id
    streams = ("OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr", "Tty")
    assert [config[name] for name in streams] == [False] * 6
    assert host["ReadonlyRootfs"] is True
    assert host["Init"] is True
    assert host["LogConfig"] == {"Type": "none", "Config": {}}
    assert host["Memory"] == host["MemorySwap"] == 64 << 20
    assert host["MemorySwappiness"] == 0
    assert (host["CpuQuota"], host["CpuPeriod"], host["CpuShares"]) == (25_000, 100_000, 0)
    assert host["PidsLimit"] == 20
    assert host["Tmpfs"] == {"/tmp": "size=3m,nr_inodes=100"}
    assert host["Binds"] == [f"{task.iofs_docker_path}:/tmp/iofs"]
    assert [name.lower() for name in host["CapDrop"]] == ["all"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]} == {
        "nofile": (200, 200),
        "memlock": (65536, 65536),
        "sigpending": (5000, 5000),
        "msgqueue": (819200, 819200),
    }


async def test_disabled_network(bench: Bench) -> None:
    found = await created(bench.driver, bench.task(disable_net=True), bench.engine)
    assert found["HostConfig"]["NetworkMode"] == "none"


async def test_options_can_be_changed_before_creation(bench: Bench) -> None:
    task = bench.task()
    cookie = await bench.driver.create_cookie(task)
    cookie.options.env["EXTRA"] = "yes"
    cookie.options.host_config["CpuShares"] = 512
    cookie.options.config["Labels"]["more"] = "1"
    cookie.options.name += "-renamed"
    try:
        await cookie.validate_image()
        await cookie.create_container()
        found = bench.inspect(task.id + "-renamed")
        assert "EXTRA=yes" in found["Config"]["Env"]
        assert found["HostConfig"]["CpuShares"] == 512
        assert found["Config"]["Labels"]["more"] == "1"
    finally:
        await cookie.aclose()


async def test_order_of_the_steps(bench: Bench) -> None:
    cookie = await bench.driver.create_cookie(bench.task())
    with pytest.raises(HostlerError, match="validate_image"):
        await cookie.create_container()
    with pytest.raises(HostlerError, match="create_container"):
        await cookie.run()
    await cookie.validate_image()
    await cookie.create_container()
    await cookie.create_container()
    assert len(bench.containers()) == 1
    await cookie.aclose()
    await cookie.aclose()


async def test_unknown_image_needs_a_pull(bench: Bench) -> None:
    cookie = await bench.driver.create_cookie(bench.task(image="hostler-test/not-there:v1"))
    assert await cookie.validate_image() is True
    await cookie.aclose()


async def test_image_that_vanishes_is_a_nack(bench: Bench, docker_host: str) -> None:
    bench.engine.tag(bench.image, "hostler-test/vanishing", bench.tag)
    image = f"hostler-test/vanishing:{bench.tag}"
    cookie = await bench.driver.create_cookie(bench.task(image=image))
    assert await cookie.validate_image() is False
    bench.engine.remove_image(image)
    with pytest.raises(ServerBusy):
        await cookie.create_container()
    await cookie.aclose()


async def test_volumes(bench: Bench, fnt_with_volume: str, docker_host: str) -> None:
    cookie = await bench.driver.create_cookie(bench.task(image=fnt_with_volume))
    with pytest.raises(ImageWithVolume, match="image has Volume definition"):
        await cookie.validate_image()
    await cookie.aclose()


async def test_volumes_can_be_allowed_and_are_removed(
    bench: Bench, fnt_with_volume: str, docker_host: str
) -> None:
    config = AgentConfig(
        container_label_tag=bench.tag, image_enable_volume=True, experimental_prefork_pool_size=0
    )
    before = volumes(bench.engine)
    async with open_docker_driver(
        config, environ={"DOCKER_HOST": docker_host}, instance_id=bench.driver.instance_id
    ) as driver:
        cookie = await driver.create_cookie(bench.task(image=fnt_with_volume))
        assert await cookie.validate_image() is False
        await cookie.create_container()
        during = volumes(bench.engine) - before
        [mount] = bench.inspect(cookie.options.name)["Mounts"][-1:]
        await cookie.aclose()
    names = {mount["Name"]} if mount["Type"] == "volume" else during
    assert names <= during
    assert not names & volumes(bench.engine)


def volumes(engine: docker.APIClient) -> set[str]:
    found = engine.volumes()["Volumes"] or []
    return {volume["Name"] for volume in found}


async def test_open_rights(
    engine: docker.APIClient, docker_host: str, fnt: str, tag: str, open_folder: Path
) -> None:
    config = AgentConfig(
        container_label_tag=tag,
        experimental_prefork_pool_size=0,
        disable_readonly_rootfs=True,
        disable_unprivileged_containers=True,
    )
    async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}) as driver:
        bench = Bench(driver, engine, tag, fnt, open_folder)
        found = await created(driver, bench.task(), engine)
        assert found["Config"]["User"] == ""
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"] is False
        assert not host["CapDrop"]
        assert not host["SecurityOpt"]
        assert not host.get("Tmpfs")
    assert containers(engine, tag) == []


async def test_two_networks_get_one_container_each(
    engine: docker.APIClient, docker_host: str, fnt: str, tag: str, open_folder: Path
) -> None:
    """Reference 07 §8."""
    names = tuple(f"{tag}-{number}" for number in (1, 2))
    networks = [engine.create_network(name)["Id"] for name in names]
    config = AgentConfig(
        container_label_tag=tag, docker_networks=names, experimental_prefork_pool_size=0
    )
    try:
        async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}) as driver:
            bench = Bench(driver, engine, tag, fnt, open_folder)
            cookies = [await driver.create_cookie(bench.task()) for _ in names]
            for cookie in cookies:
                await cookie.validate_image()
                await cookie.create_container()
            modes = {
                bench.inspect(cookie.options.name)["HostConfig"]["NetworkMode"]
                for cookie in cookies
            }
            assert modes == set(names)
            assert driver.statistics().networks == dict.fromkeys(names, 1)
            with trio.fail_after(WAIT):
                for cookie in cookies:
                    await cookie.aclose()
            assert driver.statistics().networks == dict.fromkeys(names, 0)
    finally:
        for network in networks:
            engine.remove_network(network)
