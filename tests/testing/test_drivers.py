"""Every driver passes the same suite."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import trio
from trio.testing import MockClock

from hostler.abc import ContainerTask, Cookie, Driver
from hostler.config import AgentConfig
from hostler.drivers.docker import open_docker_driver
from hostler.drivers.process import open_process_driver
from hostler.drivers.sim import open_sim_driver
from hostler.testing import (
    DRIVER_CHECKS,
    ContractBroken,
    DriverSubject,
    OpenSubject,
    add_sim_function,
    check_driver,
)
from tests.functions.build import docker_image, fnt_path

Check = Callable[[DriverSubject], Awaitable[None]]

each_check = pytest.mark.parametrize("check", DRIVER_CHECKS, ids=lambda check: check.__name__)


def folders(root: Path) -> Callable[[], tuple[str, str]]:
    numbers = itertools.count()

    def new_folder() -> tuple[str, str]:
        path = root / f"iofs{next(numbers)}"
        path.mkdir()
        path.chmod(0o777)
        return str(path), str(path)

    return new_folder


def sim_subjects(root: Path) -> OpenSubject:
    new_folder = folders(root)

    @asynccontextmanager
    async def open_subject() -> AsyncIterator[DriverSubject]:
        async with open_sim_driver() as driver:
            add_sim_function(driver).pull_time = 0.02
            image = driver.images["function"]
            image.create_time = image.start_time = image.freeze_time = image.unfreeze_time = 0.02
            image.on_machine = False

            async def exists(name: str) -> bool:
                await trio.lowlevel.checkpoint()
                return driver.exists(name)

            yield DriverSubject(
                driver=driver,
                image="function",
                missing_image="nowhere",
                new_folder=new_folder,
                exists=exists,
            )
            statistics = driver.statistics()
            assert (statistics.cookies, statistics.running, statistics.connections) == (0, 0, 0)

    return open_subject


def marked_processes(name: str) -> list[int]:
    """Processes that carry the mark of the process driver's container ``name``."""
    mark = f"HOSTLER_CONTAINER_ID={name}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            variables = Path("/proc", pid, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in variables:
            found.append(int(pid))
    return found


def process_subjects(root: Path) -> OpenSubject:
    new_folder = folders(root)

    @asynccontextmanager
    async def open_subject() -> AsyncIterator[DriverSubject]:
        async with open_process_driver(images={"fnt": [str(fnt_path())]}) as driver:

            async def exists(name: str) -> bool:
                await trio.lowlevel.checkpoint()
                return bool(marked_processes(name))

            yield DriverSubject(
                driver=driver,
                image="fnt",
                missing_image="nowhere/at/all",
                new_folder=new_folder,
                exists=exists,
            )
            statistics = driver.statistics()
            assert (statistics.cookies, statistics.containers) == (0, 0)

    return open_subject


def docker_subjects(root: Path, host: str) -> OpenSubject:
    new_folder = folders(root)

    @asynccontextmanager
    async def open_subject() -> AsyncIterator[DriverSubject]:
        image = await trio.to_thread.run_sync(docker_image, host)
        client = docker.APIClient(base_url=host)

        def look(name: str) -> bool:
            try:
                client.inspect_container(name)
            except docker.errors.NotFound:
                return False
            return True

        async def exists(name: str) -> bool:
            return await trio.to_thread.run_sync(look, name)

        environ = {**os.environ, "DOCKER_HOST": host}
        config = AgentConfig(prepared_networks=1)
        async with open_docker_driver(config, environ=environ) as driver:
            yield DriverSubject(
                driver=driver,
                image=image,
                missing_image="localhost:1/nowhere:none",
                new_folder=new_folder,
                exists=exists,
            )
        client.close()

    return open_subject


@each_check
async def test_sim(autojump_clock: MockClock, tmp_path: Path, check: Check) -> None:
    with trio.fail_after(1000):
        async with sim_subjects(tmp_path)() as subject:
            await check(subject)


@each_check
async def test_process(tmp_path: Path, check: Check) -> None:
    with trio.fail_after(60):
        async with process_subjects(tmp_path)() as subject:
            await check(subject)


@pytest.mark.docker
@each_check
async def test_docker(tmp_path: Path, docker_host: str, check: Check) -> None:
    with trio.fail_after(120):
        async with docker_subjects(tmp_path, docker_host)() as subject:
            await check(subject)


# --- the suite itself: a broken driver must not pass ----------------------------------------


class Broken(Driver):
    """A driver with one fault."""

    def __init__(self, inner: Driver, fault: str) -> None:
        self._inner = inner
        self._fault = fault

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        async def hook(*args: Any) -> None:
            pass

        if self._fault == "hook":
            task.close = hook
        if self._fault == "env":
            task.env["CONTRACT_A"] = "changed"
        if self._fault == "output" and task.on_output is not None:
            inner = task.on_output
            task.on_output = lambda data, is_stderr: inner(data, not is_stderr)
        cookie = await self._inner.create_cookie(task)
        for method in ("freeze", "aclose"):
            if self._fault == method:
                setattr(cookie, method, trio.lowlevel.checkpoint)
        return cookie

    def slot_key_extension(self, extensions: Mapping[str, str]) -> str:
        return "always" if self._fault == "key" else ",".join(sorted(extensions))


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("", set()),
        ("hook", {"hooks"}),
        ("env", {"environment"}),
        ("output", {"output"}),
        ("key", {"slot_key_extension"}),
    ],
)
async def test_suite_finds_a_fault(
    autojump_clock: MockClock, tmp_path: Path, fault: str, names: set[str]
) -> None:
    assert await _failed_checks(tmp_path, fault) == names


@pytest.mark.parametrize(("fault", "name"), [("freeze", "freezing"), ("aclose", "life")])
async def test_suite_finds_a_step_that_does_nothing(
    autojump_clock: MockClock, tmp_path: Path, fault: str, name: str
) -> None:
    assert name in await _failed_checks(tmp_path, fault)


async def _failed_checks(root: Path, fault: str) -> set[str]:
    new_folder = folders(root)

    @asynccontextmanager
    async def open_subject() -> AsyncIterator[DriverSubject]:
        async with open_sim_driver() as driver:
            add_sim_function(driver)

            async def exists(name: str) -> bool:
                await trio.lowlevel.checkpoint()
                return driver.exists(name)

            yield DriverSubject(
                driver=Broken(driver, fault),
                image="function",
                missing_image="nowhere",
                new_folder=new_folder,
                exists=exists,
            )

    try:
        await check_driver(open_subject)
    except ExceptionGroup as error:
        failures = error
    else:
        return set()
    assert failures.split(ContractBroken)[0] is not None
    return {note.removeprefix("in ") for e in failures.exceptions for note in e.__notes__}
