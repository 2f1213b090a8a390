"""The pool of network name spaces that nobody has to ask for."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import docker
import pytest
import trio
import trio.testing

from hostler.config import AgentConfig
from hostler.drivers.docker import DockerCookie, DockerDriver, DockerOptions, open_docker_driver
from hostler.drivers.docker.networks import may_change_its_name_space, needs_its_own
from hostler.drivers.docker.prefork import COMMAND, NAME, PoolPlan, pause_image, pause_program
from hostler.drivers.docker.pulls import FOREVER, Backoff
from hostler.errors import ConfigError

from ...conftest import Logs
from .conftest import WAIT, Bench, containers
from .fake_engine import FakeEngine, error, nothing, value

FOR_EACH_CPU = 1
"""Less than by default: an engine needs seconds to make and to remove so many."""
SIZE = min(FOR_EACH_CPU * (os.cpu_count() or 1), AgentConfig().prepared_networks_limit)


async def until_full(driver: DockerDriver) -> None:
    with trio.fail_after(WAIT):
        while (now := driver.statistics().prefork).free < now.size:
            await trio.testing.wait_all_tasks_blocked(0.01)


# --- on a real engine ------------------------------------------------------------------------


@pytest.fixture
async def bench(
    docker_host: str, engine: docker.APIClient, fnt: str, tag: str, open_folder: Path
) -> AsyncIterator[Bench]:
    """A driver that nobody has asked for a pool; it is full. At the end nothing of it is left."""
    config = AgentConfig(container_label_tag=tag, prepared_networks=FOR_EACH_CPU)
    async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}) as driver:
        await until_full(driver)
        yield Bench(driver, engine, tag, fnt, open_folder)
    assert containers(engine, tag) == []


async def launched(bench: Bench, change: Callable[[DockerOptions], None]) -> DockerCookie:
    """A running container whose options a custom driver has changed."""
    cookie = await bench.driver.create_cookie(bench.task("hang"))
    change(cookie.options)
    assert await cookie.validate_image() is False
    await cookie.create_container()
    await cookie.run()
    return cookie


@pytest.mark.docker
async def test_functions_join_without_a_setting(bench: Bench) -> None:
    """What holds the name spaces does nothing, has no rights, and is made by the driver."""
    pool = bench.containers()
    assert len(pool) == SIZE
    for holder in pool:
        found = bench.inspect(holder["Id"])
        assert (holder["Image"], holder["Command"]) == (NAME, COMMAND)
        assert found["Config"]["User"] == "65534:65534"
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        status = await trio.Path(f"/proc/{found['State']['Pid']}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["State"].startswith("S")
        assert {fields[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd")} == {"0" * 16}

    cookie = await launched(bench, lambda options: None)
    found = bench.inspect(cookie.options.name)
    mode = found["HostConfig"]["NetworkMode"]
    assert mode in {f"container:{holder['Id']}" for holder in pool}
    assert found["Config"]["Hostname"] == socket.gethostname()
    spaces = {
        os.readlink(f"/proc/{bench.inspect(name)['State']['Pid']}/ns/net")
        for name in (cookie.options.name, mode.removeprefix("container:"))
    }
    assert len(spaces) == 1
    await cookie.aclose()
    assert bench.driver.statistics().prefork.free == SIZE


def _network(options: DockerOptions) -> None:
    options.host_config["NetworkMode"] = "none"


@pytest.mark.docker
@pytest.mark.parametrize(
    ("change", "mode", "hostname"),
    [
        (lambda options: options.host_config.update(Dns=["10.0.0.1"]), None, None),
        (lambda options: options.host_config.update(ExtraHosts=["a:10.0.0.1"]), None, None),
        (
            lambda options: options.host_config.update(Sysctls={"net.core.somaxconn": "9"}),
            None,
            None,
        ),
        (lambda options: options.config.update(Hostname="mine"), None, "mine"),
        (lambda options: options.config.update(ExposedPorts={"80/tcp": {}}), None, None),
        (_network, "none", None),
    ],
    ids=["name server", "hosts", "sysctl", "host name", "ports", "network"],
)
async def test_custom_drivers_get_what_they_want(
    bench: Bench, change: Callable[[DockerOptions], None], mode: str | None, hostname: str | None
) -> None:
    """The engine would refuse such a container in a prepared name space. None is taken."""
    cookie = await launched(bench, change)
    found = bench.inspect(cookie.options.name)
    assert found["HostConfig"]["NetworkMode"] in ((mode,) if mode else ("default", "bridge"))
    if mode is None:
        assert found["Config"]["Hostname"] == (hostname or socket.gethostname())
    assert bench.driver.statistics().prefork.free == SIZE
    await cookie.aclose()
    assert bench.driver.statistics().prefork.free == SIZE


@pytest.mark.docker
async def test_configured_networks_are_joined_by_the_pool(
    docker_host: str, engine: docker.APIClient, fnt: str, tag: str, open_folder: Path
) -> None:
    config = AgentConfig(
        container_label_tag=tag, docker_networks=("none",), prepared_networks=FOR_EACH_CPU
    )
    async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}) as driver:
        await until_full(driver)
        bench = Bench(driver, engine, tag, fnt, open_folder)
        modes = {bench.inspect(c["Id"])["HostConfig"]["NetworkMode"] for c in bench.containers()}
        assert modes == {"none"}
        own = await launched(bench, lambda options: options.config.update(Hostname="mine"))
        assert bench.inspect(own.options.name)["HostConfig"]["NetworkMode"] == "none"
        assert driver.statistics().networks == {"none": 1}
        joined = await launched(bench, lambda options: None)
        mode = bench.inspect(joined.options.name)["HostConfig"]["NetworkMode"]
        assert mode.startswith("container:")
        assert driver.statistics().networks == {"none": 2}
        await own.aclose()
        await joined.aclose()
        assert driver.statistics().networks == {"none": 0}


async def holder_after(bench: Bench, change: Callable[[DockerOptions], None]) -> tuple[str, str]:
    """Who held the name space of one container, and who holds that of the next one."""
    holders = []
    for _ in range(2):
        cookie = await launched(bench, change)
        holders.append(bench.inspect(cookie.options.name)["HostConfig"]["NetworkMode"])
        await cookie.aclose()
    return holders[0], holders[1]


@pytest.mark.docker
async def test_no_name_space_that_may_have_been_changed_is_used_again(bench: Bench) -> None:
    first, second = await holder_after(bench, lambda options: None)
    assert first == second
    first, second = await holder_after(
        bench, lambda options: options.host_config.update(CapAdd=["NET_ADMIN"])
    )
    assert first != second
    await until_full(bench.driver)
    assert first.removeprefix("container:") not in {one["Id"] for one in bench.containers()}


@pytest.mark.docker
async def test_root_that_may_write_gets_no_name_space_of_another(
    docker_host: str, engine: docker.APIClient, fnt: str, tag: str, open_folder: Path
) -> None:
    """Containers of one name space share /etc/hosts."""
    config = AgentConfig(
        container_label_tag=tag,
        prepared_networks=FOR_EACH_CPU,
        disable_readonly_rootfs=True,
        disable_unprivileged_containers=True,
    )
    async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}) as driver:
        await until_full(driver)
        bench = Bench(driver, engine, tag, fnt, open_folder)
        first, second = await holder_after(bench, lambda options: None)
        assert first != second


# --- which pool ------------------------------------------------------------------------------


async def plan_of(
    engine: FakeEngine, environ: dict[str, str], info: dict[str, Any], **settings: Any
) -> PoolPlan | None:
    engine.on("GET /info", value(info))
    engine.on("GET /images/.*", engine.hang)  # how the pool gets on is not the question here
    with trio.fail_after(WAIT):
        async with open_docker_driver(AgentConfig(**settings), environ=environ) as driver:
            pool = driver._shared.prefork
            engine.release()
            return pool.plan if pool else None


AMD = {"DefaultRuntime": "runc", "Architecture": "x86_64", "NCPU": 1}
ARM = {"DefaultRuntime": "crun", "Architecture": "aarch64", "NCPU": 64}
S390 = {"DefaultRuntime": "runc", "Architecture": "s390x"}
GVISOR = {"DefaultRuntime": "runsc", "Architecture": "x86_64"}


@pytest.mark.parametrize(("info", "size"), [(AMD, 16), (ARM, 32)], ids=["amd", "arm"])
async def test_plan_by_default(
    fake_engine: FakeEngine, fake_environ: dict[str, str], info: dict[str, Any], size: int
) -> None:
    plan = await plan_of(fake_engine, fake_environ, info)
    assert plan == PoolPlan(
        size=size,
        image=NAME,
        command=(COMMAND,),
        program=pause_program(info["Architecture"]) or b"",
        wanted=False,
    )


@pytest.mark.parametrize(
    ("info", "reason"),
    [(S390, "architecture 's390x'"), (GVISOR, "runtime 'runsc'"), ({}, "runtime ''")],
    ids=["processor", "runtime", "nothing told"],
)
async def test_no_plan_where_it_may_not_work(
    fake_engine: FakeEngine,
    fake_environ: dict[str, str],
    info: dict[str, Any],
    reason: str,
    logs: Logs,
) -> None:
    assert await plan_of(fake_engine, fake_environ, info) is None
    [line] = logs.with_event("no network name spaces are prepared")
    assert reason in line["reason"]


async def test_no_plan_if_the_engine_does_not_describe_itself(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    """Proxies of engines forbid that."""
    fake_engine.on("GET /info", error(403, "Forbidden"))
    async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
        assert driver.statistics().prefork.size == 0
    assert "Forbidden" in logs.with_event("no network name spaces are prepared")[0]["reason"]


async def test_plan_that_was_asked_for(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """Whatever the runtime; with an image of one's own whatever the processor."""
    size = {"experimental_prefork_pool_size": 9}
    plan = await plan_of(fake_engine, fake_environ, GVISOR, **size)
    assert plan is not None
    assert (plan.size, plan.image, plan.wanted) == (9, NAME, True)
    image = {"experimental_prefork_image": "busybox"}
    plan = await plan_of(fake_engine, fake_environ, S390, **size, **image)
    assert plan == PoolPlan(size=9, image="busybox", command=("tail", "-f", "/dev/null"))
    assert await plan_of(fake_engine, fake_environ, GVISOR, **image) is None
    assert await plan_of(fake_engine, fake_environ, AMD, prepared_networks=0) is None
    plan = await plan_of(fake_engine, fake_environ, ARM, prepared_networks_limit=11)
    assert plan is not None
    assert plan.size == 11
    with pytest.raises(ConfigError, match=r"POOL_SIZE=9 needs FN_EXPERIMENTAL_PREFORK_IMAGE.*s390"):
        await plan_of(fake_engine, fake_environ, S390, **size)


async def test_an_image_that_is_missing_is_made(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    fake_engine.on("GET /images/hostler-pause:1/json", error(404, "No such image"))
    fake_engine.on("POST /images/load", value({"stream": "Loaded image: hostler-pause:1"}))
    fake_engine.on("POST /containers/create", error(409, "Conflict"))
    fake_engine.on("DELETE /containers/.*", nothing)
    fake_engine.on("GET /info", value(AMD))
    with trio.fail_after(WAIT):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            await fake_engine.wait_for("POST /containers/create", 16)
    [request] = [r for r in fake_engine.requests if r.path.endswith("/images/load")]
    program = pause_program("x86_64")
    assert program is not None
    assert request.body == pause_image(NAME, program)


async def test_an_image_that_the_engine_does_not_take_is_made_again(
    fake_engine: FakeEngine,
    fake_environ: dict[str, str],
    logs: Logs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soon = Backoff(max_retries=FOREVER, interval_msec=1, max_delay_msec=1)
    monkeypatch.setattr("hostler.drivers.docker.prefork.IMAGE_RETRY", soon)
    fake_engine.on("GET /images/hostler-pause:1/json", error(404, "No such image"))
    fake_engine.on("POST /images/load", value({"error": "no space left on device"}))
    fake_engine.on("GET /info", value(AMD))
    with trio.fail_after(WAIT):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            await fake_engine.wait_for("POST /images/load", 2)
    line, *_ = logs.with_event("prefork image can't be had, will try again")
    assert "no space left on device" in line["error"]


@pytest.mark.parametrize(
    ("part", "options", "needs"),
    [
        ("config", {"Domainname": "d"}, True),
        ("config", {"Hostname": "mine"}, True),
        ("config", {"Hostname": "box"}, False),
        ("config", {"MacAddress": "02:42:ac:11:00:02"}, True),
        ("config", {"Hostname": "", "ExposedPorts": {}}, False),
        ("config", {"Labels": {"a": "b"}, "User": "7"}, False),
        ("host_config", {"Links": ["a:b"]}, True),
        ("host_config", {"PortBindings": {"80/tcp": [{}]}}, True),
        ("host_config", {"Runtime": "runsc"}, True),
        ("host_config", {"CpuShares": 7, "Dns": [], "Sysctls": {"kernel.shmmax": "1"}}, False),
        ("host_config", {"Sysctls": None}, False),
        ("networking_config", {"EndpointsConfig": {"a": {}}}, True),
    ],
)
def test_options_that_need_a_name_space_of_their_own(
    part: str, options: dict[str, Any], needs: bool
) -> None:
    assert needs_its_own(DockerOptions(name="ctr", **{part: options}), "box") is needs


UNPRIVILEGED = {"CapDrop": ["all"], "SecurityOpt": ["no-new-privileges"]}


@pytest.mark.parametrize(
    ("user", "host_config", "may"),
    [
        ("1000:1000", {**UNPRIVILEGED, "ReadonlyRootfs": True}, False),
        ("1000:1000", UNPRIVILEGED, False),
        ("1000:1000", {"CapDrop": ["all"]}, True),
        ("0:1000", UNPRIVILEGED, True),
        ("me", UNPRIVILEGED, True),
        ("", {}, True),
        ("", {"ReadonlyRootfs": True}, False),
        ("1000", {**UNPRIVILEGED, "ReadonlyRootfs": True, "CapAdd": ["NET_ADMIN"]}, True),
        ("1000", {**UNPRIVILEGED, "ReadonlyRootfs": True, "Privileged": True}, True),
    ],
)
def test_options_with_which_a_name_space_may_be_changed(
    user: str, host_config: dict[str, Any], may: bool
) -> None:
    options = DockerOptions(name="ctr", config={"User": user}, host_config=host_config)
    assert may_change_its_name_space(options) is may
