"""Images between cookies, cleaner and engine: over HTTP on a fake engine, and on a real one."""

from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote

import docker
import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerMetrics, EngineError, EngineOperation, open_docker_driver
from hostler.drivers.docker.engine import Engine, open_engine
from hostler.drivers.docker.image_cleaner import ImageCleaner, ImageUsage, take_stock
from hostler.drivers.docker.images import Images
from hostler.errors import ImageWithVolume, SyslogUnavailable

from .conftest import WAIT
from .fake_engine import FakeEngine, error, nothing, value

T = TypeVar("T")


def summary(name: str, **fields: Any) -> dict[str, Any]:
    """As the engine lists an image."""
    defaults = {
        "Id": f"sha256:{name}",
        "RepoTags": [f"{name}:latest"],
        "RepoDigests": None,
        "Size": 100,
        "SharedSize": 0,
        "Created": 1,
        "Containers": 0,
    }
    return {**defaults, **fields}


def usage(*images: dict[str, Any], layers: int = 1000) -> dict[str, Any]:
    return {"LayersSize": layers, "Images": list(images), "Containers": None}


@pytest.mark.parametrize("volumes", [None, {"/data": {}}], ids=["fine", "with a volume"])
async def test_an_image_is_busy_from_its_validation_to_the_end_of_its_container(
    fake_engine: FakeEngine, fake_environ: dict[str, str], volumes: object
) -> None:
    """Reference 07 §8. One with a volume, which is refused, never is."""
    image = summary("img")
    fake_engine.on(
        "GET /images/img/json", value({"Id": image["Id"], "Config": {"Volumes": volumes}})
    )
    fake_engine.on("GET /system/df", value(usage(layers=0)))
    fake_engine.on("DELETE /images/img:latest", value([]))
    config = AgentConfig(image_clean_max_size=1)
    with trio.fail_after(WAIT):
        async with open_docker_driver(config, environ=fake_environ) as driver:
            cookie = await driver.create_cookie(ContainerTask(id="ctr", image="img"))
            if volumes:
                with pytest.raises(ImageWithVolume):
                    await cookie.validate_image()
            else:
                assert await cookie.validate_image() is False
            # From now on there is too much.
            rounds = fake_engine.count("GET /system/df")
            fake_engine.on("GET /system/df", value(usage(image)))
            await fake_engine.wait_for("GET /system/df", rounds + 1)
            if not volumes:
                while (found := driver.statistics().images) is None or not found.busy:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                assert (found.busy_size, found.disk_size, found.limit) == (100, 1000, 1)
                assert fake_engine.count("DELETE /images/.*") == 0
            await cookie.aclose()
            await fake_engine.wait_for("DELETE /images/img:latest")


async def test_without_a_limit_nothing_is_measured(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    fake_engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
    async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
        cookie = await driver.create_cookie(ContainerTask(id="ctr", image="img"))
        assert await cookie.validate_image() is False
        await cookie.aclose()
        assert driver.statistics().images is None
    assert fake_engine.count("GET /system/df") == 0


async def test_the_prefork_image_is_exempt(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """Weakness 04/15. The pool finds no image to start with, which is not the question here."""
    fake_engine.on("GET /images/hostler-pause:1/json", fake_engine.hang)
    images = summary("hostler-pause", RepoTags=["hostler-pause:1"]), summary("other")
    fake_engine.on("GET /system/df", value(usage(*images)))
    fake_engine.on("DELETE /images/other:latest", error(409, "in use"))
    config = AgentConfig(image_clean_max_size=7, experimental_prefork_pool_size=1)
    registry = CollectorRegistry()
    metrics = DockerMetrics(registry)
    with trio.fail_after(WAIT):
        async with open_docker_driver(config, environ=fake_environ, metrics=metrics):
            await fake_engine.wait_for("GET /system/df", 2)
            shown = {
                name: registry.get_sample_value(f"fn_image_cleaner_{name}")
                for name in (
                    "idle_img_count",
                    "idle_img_size",
                    "busy_img_count",
                    "busy_img_size",
                    "max_img_size",
                    "disk_size",
                )
            }
            assert list(shown.values()) == [1, 100, 0, 0, 7, 900]
            fake_engine.release()
    assert fake_engine.count("DELETE /images/hostler-pause.*") == 0


async def test_names_go_one_by_one(fake_engine: FakeEngine, fake_environ: dict[str, str]) -> None:
    """An image with names of several repositories could only be removed by force by its id."""
    digest = "r.io/a@sha256:0"
    many = summary("a", RepoTags=["a:v1", "r.io/a:v1"], RepoDigests=[digest])
    nameless = summary("b", RepoTags=["<none>:<none>"], RepoDigests=["<none>@<none>"], Created=2)
    answers = iter([usage(many, nameless), usage(nameless), usage(layers=0)])

    async def df(request: object) -> Any:
        return await value(next(answers))(request)  # type: ignore[arg-type]

    fake_engine.on("GET /system/df", df)
    fake_engine.on("DELETE /images/.*", value([]))
    fake_engine.on("DELETE /images/r.io/a(@|%40).*", error(404, "no such image"))
    with trio.fail_after(WAIT):
        async with open_docker_driver(
            AgentConfig(image_clean_max_size=1), environ=fake_environ
        ) as driver:
            await fake_engine.wait_for("GET /system/df", 3)
            while (found := driver.statistics().images) is None or found.removed < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
    removed = [unquote(line.split("/images/")[1]) for line in fake_engine.seen if "DELETE" in line]
    assert removed == ["a:v1", "r.io/a:v1", digest, "sha256:b"]


@pytest.mark.parametrize(
    ("total", "size"), [({"ImageUsage": {"TotalSize": 150}}, 150), ({}, 200)], ids=["new", "none"]
)
async def test_engines_that_leave_the_list_out(
    fake_engine: FakeEngine, fake_environ: dict[str, str], total: dict[str, Any], size: int
) -> None:
    fake_engine.on("GET /system/df", value(total))
    fake_engine.on("GET /images/json", value([summary("a", SharedSize=50), summary("b")]))
    engine = await open_engine(fake_environ)
    stock = await take_stock(engine)
    await engine.aclose()
    assert stock.disk_size == size
    assert [image.own_size for image in stock.images] == [50, 100]


@pytest.mark.parametrize("strange", [[], {"Images": [1]}, {"Images": [{"Id": "x"}]}, "text"])
async def test_strange_lists(
    fake_engine: FakeEngine, fake_environ: dict[str, str], strange: object
) -> None:
    fake_engine.on("GET /system/df", value(strange))
    fake_engine.on("GET /images/json", value({"a": "dict"}))
    engine = await open_engine(fake_environ)
    with pytest.raises(EngineError, match="measure images"):
        await take_stock(engine)
    await engine.aclose()


@pytest.mark.parametrize(
    "text", ["unsupported scheme: 'foo'", "stat /run/none.sock: no such file or directory"]
)
async def test_syslog_address_that_the_engine_refuses(
    fake_engine: FakeEngine, fake_environ: dict[str, str], text: str
) -> None:
    fake_engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
    fake_engine.on("POST /containers/create", error(400, text))
    fake_engine.on("DELETE /containers/ctr", nothing)
    async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
        for url, expected in (("foo://x", SyslogUnavailable), ("", EngineError)):
            task = ContainerTask(id="ctr", image="img", syslog_url=url)
            cookie = await driver.create_cookie(task)
            await cookie.validate_image()
            with pytest.raises(expected):
                await cookie.create_container()
            await cookie.aclose()


# --- on a real engine ----------------------------------------------------------------------


class NarrowEngine(Engine):
    """The real engine, but only images with a certain name exist, so that a test's cleaner
    does not tidy up the machine."""

    def __init__(self, engine: Engine, part: str) -> None:
        self._engine = engine
        self._part = part

    async def call(self, operation: EngineOperation, request: Callable[[docker.APIClient], T]) -> T:
        found = await self._engine.call(operation, request)
        if isinstance(found, ImageUsage):
            ours = tuple(i for i in found.images if any(self._part in tag for tag in i.tags))
            return ImageUsage(ours, sum(i.own_size for i in ours))  # type: ignore[return-value]
        return found


def import_image(engine: docker.APIClient, name: str) -> None:
    """An image of 100 000 bytes like no other."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("content")
        info.size = 100_000
        tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    repository, tag = name.split(":")
    engine.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)


@pytest.fixture
def three(engine: docker.APIClient) -> Iterator[list[str]]:
    """Names of three images."""
    repository = f"hostler-clean-{uuid.uuid4().hex[:8]}"
    names = [f"{repository}:v{i}" for i in range(3)]
    for name in names:
        import_image(engine, name)
    yield names
    for image in engine.images(name=repository):
        engine.remove_image(image["Id"], force=True)


def existing(engine: docker.APIClient, names: list[str]) -> list[str]:
    tags = {tag for image in engine.images() for tag in image["RepoTags"] or []}
    return [name for name in names if name in tags]


@pytest.mark.docker
async def test_real_images_go_in_order_unless_a_container_or_a_lease_has_them(
    engine: docker.APIClient, docker_host: str, three: list[str]
) -> None:
    real = await open_engine({"DOCKER_HOST": docker_host})
    narrow = NarrowEngine(real, three[0].split(":")[0])
    images = Images(narrow)
    cleaner = ImageCleaner(narrow, images, 1, [])
    # The first is used by a stranger's container, the third by us.
    container = engine.create_container(three[0], command="/none")["Id"]
    lease = await images.lease(three[2])
    assert lease is not None
    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cleaner.run)
            while cleaner.statistics().removed < 1:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert existing(engine, three) == [three[0], three[2]]
            engine.remove_container(container)
            lease.release()
            while cleaner.statistics().removed < 3:
                await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    assert existing(engine, three) == []
    assert await images.lease(three[2]) is None
    await real.aclose()
