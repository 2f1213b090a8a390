"""A provider's own code in whole nodes, in a program and by ``--extensions``; and when it fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from hostler import wire
from hostler._asgi.types import ASGIApp, Receive, Scope, Send
from hostler.abc import CallListener, Driver
from hostler.api import ApiRequest, AppListener, Reply, Route, json_reply
from hostler.calls import PendingCall
from hostler.config import StoreConfig
from hostler.datastore import AppFilter
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.errors import APIError, ConfigError
from hostler.functions import FunctionTable
from hostler.models import App, Fn
from hostler.nodes import (
    ApiSettings,
    Extensions,
    LBSettings,
    RunnerSettings,
    RunningNode,
    ServeSettings,
    open_api,
    open_lb,
    open_runner,
    open_serve,
)
from hostler.nodes.extensions import USES, load_extensions
from hostler.pool import NaivePlacer, RunnerAccess, open_static_pool
from hostler.runner import Hooks
from hostler.store import open_datastore
from tests.cli._process import SCRIPT, clean_env, ends, open_node, run
from tests.conftest import Logs

LOCAL = "127.0.0.1:0"
TABLE = FunctionTable.of(
    [App(id="app", name="app")], [Fn(id="echo", name="echo", app_id="app", image="echo")]
)
ECHO = "/invoke/echo"


async def echo(request: SimRequest) -> SimResponse:
    return SimResponse(body=await request.read())


def sim_driver(config: object) -> AbstractAsyncContextManager[Driver]:
    return open_sim_driver({"echo": echo})


class Settings:
    """Settings of nodes in one folder."""

    def __init__(self, folder: Path) -> None:
        (folder / "sockets").mkdir()
        self.common: dict[str, Any] = {
            "bind": LOCAL,
            "env": {
                "FN_IOFS_PATH": str(folder / "sockets"),
                "FN_DB_URL": f"sqlite3://{folder}/fn.db",
                "FN_DRAIN_GRACE_MSECS": "5000",
            },
        }

    def serve(self, **more: Any) -> ServeSettings:
        return ServeSettings(**{**self.common, "functions": TABLE, **more})

    def runner(self, **more: Any) -> RunnerSettings:
        return RunnerSettings(**{**self.common, **more})

    def lb(self, *runners: str, **more: Any) -> LBSettings:
        env = {**self.common["env"], "FN_RUNNER_ADDRESSES": ",".join(runners)}
        return LBSettings(**{**self.common, "functions": TABLE, "env": env, **more})

    def api(self, **more: Any) -> ApiSettings:
        return ApiSettings(**{**self.common, **more})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path)


def asking(node: RunningNode) -> httpx.AsyncClient:
    return asking_at(f"http://{node.http[0]}")


def asking_at(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=60)


class Bill(CallListener):
    def __init__(self) -> None:
        self.entries: list[str] = []

    async def after_call(self, call: PendingCall) -> None:
        self.entries.append(f"{call.model.fn_id} {call.model.status}")


def mark(name: str) -> Callable[[ASGIApp], ASGIApp]:
    """Middleware that writes its name into a header of each answer."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def marked(scope: Scope, receive: Receive, send: Send) -> None:
            async def marking(message: Mapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message["headers"], (b"via", name.encode())]}
                await send(message)

            await app(scope, receive, marking)

        return marked

    return wrap


async def test_everything_that_a_full_node_takes(settings: Settings) -> None:
    bill, seen = Bill(), []

    class Names(AppListener):
        async def before_create(self, new: App) -> App:
            seen.append(new.name)
            return new

    async def names(request: ApiRequest) -> Reply:
        page = await request.store.apps.list(AppFilter())
        return json_reply([app.name for app in page.items])

    async def ready(node: RunningNode) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(node.kind)

    @asynccontextmanager
    async def at_work(node: RunningNode) -> AsyncIterator[None]:
        seen.append("opened")
        yield
        seen.append("closed")

    extensions = Extensions(
        driver=sim_driver,
        call_listeners=[bill],
        overrider=lambda request, call, extensions: None,
        api_listeners=[Names()],
        root_middleware=[mark("outer"), mark("inner")],
        api_middleware=[mark("api")],
        endpoints=[
            Route("GET", "/v2/names", names),
            Route("GET", "/provider/names", names),
        ],
        startup=[ready, at_work],
    )
    async with open_serve(settings.serve(functions=None), extensions) as node:
        assert seen == ["serve", "opened"]
        async with asking(node) as client:
            app = (await client.post("/v2/apps", json={"name": "shop"})).json()
            fn = {"name": "f", "image": "echo", "app_id": app["id"]}
            fn_id = (await client.post("/v2/fns", json=fn)).json()["id"]
            answer = await client.post(f"/invoke/{fn_id}", content=b"x")
            assert (answer.content, answer.headers.get_list("via")) == (b"x", ["inner", "outer"])
            for path in ("/v2/names", "/provider/names"):
                assert (await client.get(path)).json() == ["shop"]
            names_via = (await client.get("/v2/names")).headers.get_list("via")
            assert names_via == ["api", "inner", "outer"]
            metrics = (await client.get("/metrics")).text
            assert 'request_count{method="GET",path="/provider/names"} 1.0' in metrics
    assert seen == ["serve", "opened", "shop", "closed"]
    assert bill.entries == [f"{fn_id} success"]


async def test_an_endpoint_needs_the_token_of_the_api(settings: Settings) -> None:
    async def seen(request: ApiRequest) -> Reply:
        return json_reply("seen")

    env = {**settings.common["env"], "FN_API_TOKEN": "secret-of-this-test"}
    extensions = Extensions(driver=sim_driver, endpoints=[Route("GET", "/mine", seen)])
    async with open_serve(settings.serve(env=env), extensions) as node, asking(node) as client:
        assert (await client.get("/mine")).status_code == 401
        token = {"Authorization": "Bearer secret-of-this-test"}
        assert (await client.get("/mine", headers=token)).json() == "seen"


async def test_two_kinds_of_nodes_and_two_of_a_kind_in_one_process(settings: Settings) -> None:
    bill = Bill()
    async with (
        open_runner(settings.runner(http_bind=LOCAL), Extensions(driver=sim_driver)) as runner,
        open_lb(settings.lb(runner.grpc), Extensions(call_listeners=[bill])) as one,
        open_lb(settings.lb(runner.grpc), Extensions(placer=NaivePlacer)) as two,
    ):
        for lb in (one, two, one):
            async with asking(lb) as client:
                assert (await client.post(ECHO, content=b"x")).content == b"x"
        for node, count in ((one, 2), (two, 1), (runner, 0)):
            async with asking(node) as client:
                metrics = (await client.get("/metrics")).text
                line = f'request_count{{method="POST",path="/invoke/:fn_id"}} {count}.0'
                assert (line in metrics) == (count > 0)
                assert "fn_lb_pool_lookup_failure_count" in metrics
    assert len(bill.entries) == 2
    async with open_lb(settings.lb("127.0.0.1:1")) as again, asking(again) as client:
        assert (await client.get("/readyz")).status_code == 200


async def test_a_pool_and_functions_of_ones_own(settings: Settings) -> None:
    """A database serves a load balancer; its answers are cached as another node's would be."""
    env = settings.common["env"]
    async with (
        open_datastore(StoreConfig.from_env(env)) as store,
        wire.open_loop() as loop,
        open_runner(settings.runner(), Extensions(driver=sim_driver)) as runner,
    ):
        app = await store.apps.create(App(id="", name="shop"))
        fn = await store.fns.create(Fn(id="", name="f", image="echo", app_id=app.id))
        extensions = Extensions(
            functions=lambda given: nullcontext(store),
            pool=lambda config: open_static_pool([runner.grpc], RunnerAccess(loop=loop)),
        )
        async with open_lb(settings.lb(functions=None), extensions) as lb, asking(lb) as client:
            assert (await client.post(f"/invoke/{fn.id}", content=b"x")).content == b"x"
        async with (
            open_api(settings.api(), Extensions(functions=lambda given: nullcontext(store))) as api,
            asking(api) as client,
        ):
            assert (await client.get("/v2/apps")).json()["items"][0]["name"] == "shop"


async def test_a_catalog_is_asked_for_each_call(settings: Settings) -> None:
    asked: list[str] = []

    class Catalog:
        async def find(self, fn_id: str) -> tuple[App, Fn]:
            asked.append(fn_id)
            return await TABLE.find("echo")

        async def find_trigger(self, app_name: str, source: str) -> Any:
            raise AssertionError

    extensions = Extensions(driver=sim_driver, functions=lambda given: nullcontext(Catalog()))
    async with open_serve(settings.serve(), extensions) as node, asking(node) as client:
        for _ in range(2):
            assert (await client.post("/invoke/any", content=b"x")).content == b"x"
        assert asked == ["any", "any"]


# --- faults -----------------------------------------------------------------------------------


async def test_an_endpoint_or_listener_that_raises_harms_nobody_else(
    settings: Settings, logs: Logs
) -> None:
    class Broken(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            if call.model.headers.get("Veto"):
                raise APIError(402, "pay first")
            if call.model.headers.get("Fail"):
                raise ValueError("of mine")

        async def after_call(self, call: PendingCall) -> None:
            raise ValueError("after")

    async def broken(request: ApiRequest) -> Reply:
        raise ValueError("mine, too")

    async def no_store(request: ApiRequest) -> Reply:
        raise AssertionError(request.store.apps)

    bill = Bill()
    extensions = Extensions(
        driver=sim_driver,
        call_listeners=[Broken(), bill],
        endpoints=[Route("GET", "/mine", broken), Route("GET", "/mine/store", no_store)],
    )
    async with open_serve(settings.serve(), extensions) as node, asking(node) as client:
        assert (await client.get("/mine")).status_code == 500
        answer = await client.get("/mine/store")
        assert (answer.status_code, answer.json()["message"]) == (
            500,
            "This node has no datastore",
        )
        assert (await client.post("/mine")).status_code == 405
        assert (await client.get("/mine/other")).status_code == 404
        assert (await client.post(ECHO, headers={"Veto": "1"})).status_code == 402
        assert (await client.post(ECHO, headers={"Fail": "1"})).status_code == 500
        assert (await client.post(ECHO, content=b"x")).content == b"x"
    assert bill.entries == ["echo success"]
    assert logs.expect_error("request failed")["path"] == "/mine"
    assert "of mine" in str(logs.expect_error("internal error in a call")["exception"])
    logs.expect_error("after-call listener failed")


async def fail(node: RunningNode) -> None:
    raise OSError("the bill can't be opened")


@asynccontextmanager
async def fails_later(node: RunningNode) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, node)
        yield


async def test_a_startup_that_fails_leaves_nothing(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        bind = f"127.0.0.1:{found.getsockname()[1]}"
    for _ in range(2):  # the port is free again
        extensions = Extensions(driver=sim_driver, startup=[fail])
        with pytest.raises(ConfigError, match=r"fail: OSError: the bill can't be opened \(.*line"):
            async with open_serve(settings.serve(bind=bind), extensions):
                pytest.fail("opened")
    extensions = Extensions(driver=sim_driver, startup=[fails_later])
    with pytest.RaisesGroup(pytest.RaisesExc(OSError), flatten_subgroups=True):
        async with open_serve(settings.serve(bind=bind), extensions):
            await trio.sleep_forever()


def no_startup(node: RunningNode) -> Any:
    return None


async def test_a_startup_that_is_not_asynchronous_is_told(settings: Settings) -> None:
    extensions = Extensions(driver=sim_driver, startup=[no_startup])
    with pytest.raises(ConfigError, match="no_startup: has to be an async function"):
        async with open_serve(settings.serve(), extensions):
            pytest.fail("opened")


async def test_an_exception_of_the_block_leaves_a_node_at_once(settings: Settings) -> None:
    with trio.fail_after(60), pytest.raises(ValueError, match="of the program"):
        async with open_serve(settings.serve(), Extensions(driver=sim_driver)):
            raise ValueError("of the program")


async def test_what_a_startup_opens_is_there_until_the_last_call_has_ended(
    settings: Settings,
) -> None:
    """A detached call outlives the front end of its node."""
    go_on, seen = trio.Event(), []

    async def work(request: SimRequest) -> SimResponse:
        await go_on.wait()
        return SimResponse()

    class Ledger(CallListener):
        async def after_call(self, call: PendingCall) -> None:
            seen.append("billed")

    @asynccontextmanager
    async def ledger(node: RunningNode, name: str) -> AsyncIterator[None]:
        yield
        seen.append(f"{name} closed")

    async def let_go() -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not seen
        go_on.set()

    extensions = Extensions(
        driver=lambda config: open_sim_driver({"echo": work}),
        call_listeners=[Ledger()],
        startup=[partial(ledger, name="first"), partial(ledger, name="second")],
    )
    async with (
        trio.open_nursery() as nursery,
        open_serve(settings.serve(), extensions) as node,
        asking(node) as client,
    ):
        detached = {"Fn-Invoke-Type": "detached"}
        assert (await client.post(ECHO, headers=detached)).status_code == 202
        nursery.start_soon(let_go)
    assert seen == ["billed", "second closed", "first closed"]


HANGS = """
import trio
from hostler.nodes import Extensions

async def hang(node):
    print("hangs", flush=True)
    await trio.sleep_forever()

async def fail(node):
    raise ValueError("no bill")

hanging = Extensions(startup=[hang])
failing = Extensions(startup=[fail])
"""


async def test_a_startup_that_hangs_ends_with_the_node(tmp_path: Path, functions: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    args = ("lb", "--runners", "127.0.0.1:1", "--functions", str(functions), "--bind", LOCAL)
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [str(SCRIPT), *args, "--extensions", "mine:hanging"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_env(),
            cwd=tmp_path,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert (await process.stdout.receive_some()).startswith(b"hangs")
        process.send_signal(signal.SIGTERM)
        text = b"".join([data async for data in process.stderr])
        assert await process.wait() == 0, text
        assert b"startup action is cancelled" in text


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.yaml"
    path.write_text("apps:\n- name: app\n  fns:\n  - {name: echo, id: echo, image: 'echo:1'}\n")
    return path


WRONG = """
from hostler.nodes import Extensions
from hostler.abc import Driver

text = "no"
nothing = Extensions()
def raising(settings):
    raise ValueError("no " + settings.kind)
def other(settings):
    return {"driver": 7}
async def asynchronous(settings):
    return Extensions()
async def override(request, call, extensions):
    return extensions
def asynchronous_part(settings):
    return Extensions(overrider=override)
def open_pool(config):
    raise RuntimeError("no pool")
pool = Extensions(pool=open_pool)
def no_middleware(app):
    return None
middleware = Extensions(root_middleware=[no_middleware])
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:x", "--extensions 'nowhere:x': ModuleNotFoundError: No module named 'nowhere'"),
        ("broken:x", "--extensions 'broken:x': ZeroDivisionError: division by zero"),
        ("exits:x", "--extensions 'exits:x': SystemExit: of mine"),
        ("mine:asynchronous", "--extensions 'mine:asynchronous': has to be Extensions, or a"),
        (
            "mine:asynchronous_part",
            "--extensions 'mine:asynchronous_part': overrider: a call overrider must not be async",
        ),
        ("mine:pool", "--extensions 'mine:pool': pool: RuntimeError: no pool (mine.py, line 18)"),
        ("mine:middleware", "middleware no_middleware: must return an application, not a NoneType"),
        ("mine:x", "--extensions 'mine:x': AttributeError: module 'mine' has no attribute 'x'"),
        ("mine:text", "--extensions 'mine:text': has to be Extensions, or a callable of the"),
        ("mine:other", "--extensions 'mine:other': has to be Extensions, or a callable of the"),
        ("mine:raising", "--extensions 'mine:raising': ValueError: no lb (mine.py, line 8)"),
        ("billing", "--extensions 'billing': takes module:attribute, or the name of an entry"),
        ("hangs:failing", "startup action hangs.fail: ValueError: no bill (hangs.py, line 10)"),
    ],
)
async def test_what_can_not_be_loaded_is_one_line(
    name: str, message: str, tmp_path: Path, functions: Path
) -> None:
    (tmp_path / "mine.py").write_text(WRONG)
    (tmp_path / "hangs.py").write_text(HANGS)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit('of mine')\n")
    args = ("lb", "--runners", "127.0.0.1:1", "--functions", str(functions), "--bind", LOCAL)
    done = await run(*args, "--extensions", name, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1].replace(f"{tmp_path}/", "")
    assert message in last, done.stderr
    assert "Traceback" not in done.stderr


async def test_installed_extensions_are_loaded_by_name_in_order(
    tmp_path: Path, functions: Path
) -> None:
    packages = tmp_path / "packages"
    info = packages / "billing-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: billing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hostler.extensions]\nbilling = billing:make\nother = nowhere:x\n"
    )
    (packages / "billing.py").write_text(
        "from hostler.api import Route, json_reply\n"
        "from hostler.nodes import Extensions\n"
        "def make(settings):\n"
        "    async def bill(request):\n"
        "        return json_reply({'kind': settings.kind})\n"
        "    return Extensions(endpoints=[Route('GET', '/v2/bill', bill)])\n"
    )
    (tmp_path / "more.py").write_text(
        "from hostler.nodes import Extensions\n"
        "more = Extensions(overrider=lambda request, call, extensions: None)\n"
    )
    args = ("lb", "--runners", "127.0.0.1:1", "--functions", str(functions), "--bind", LOCAL)
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": path, "FN_EXTENSIONS": "billing more:more"}
    async with open_node(*args, env=env, cwd=tmp_path) as node:
        async with asking_at(node.url) as client:
            assert (await client.get("/v2/bill")).json() == {"kind": "lb"}
        assert await ends(node) == 0
    twice = ("--extensions", "billing", "--extensions", "billing")
    done = await run(*args, *twice, env=env, cwd=tmp_path)
    assert "endpoints: two routes for GET /v2/bill" in done.stderr
    both = ("--extensions", "more:more", "--overrider", "more:more.overrider")
    done = await run(*args, *both, env=env, cwd=tmp_path)
    assert (
        "overrider: given by --extensions 'more:more' and by --overrider 'more:more.overrider'"
        in done.stderr
    )


WORKERS = """
import os
from hostler.api import Route, json_reply
from hostler.nodes import Extensions

async def pid(request):
    return json_reply(os.getpid())

async def started(node):
    with open("started", "a") as file:
        print(os.getpid(), node.kind, file=file)

mine = Extensions(endpoints=[Route("GET", "/mine/pid", pid)], startup=[started])
"""


async def test_each_worker_has_its_own(tmp_path: Path, functions: Path) -> None:
    (tmp_path / "mine.py").write_text(WORKERS)
    (tmp_path / "hangs.py").write_text(HANGS)
    settings = ("--functions", str(functions), "--bind", LOCAL, "--workers", "2")
    args = ("lb", "--runners", "127.0.0.1:1", *settings)
    async with open_node(*args, "--extensions", "mine:mine", cwd=tmp_path) as node:
        workers = node.ready["workers"]
        async with asking_at(node.url) as client:
            assert (await client.get("/mine/pid")).json() in workers
        assert await ends(node) == 0
    started = (tmp_path / "started").read_text().splitlines()
    assert sorted(started) == sorted(f"{pid} lb" for pid in workers)
    done = await run(*args, "--extensions", "hangs:failing", cwd=tmp_path)
    assert done.returncode == 1
    assert "startup action hangs.fail: ValueError: no bill" in done.stderr
    assert "Traceback" not in done.stderr


async def nothing(request: ApiRequest) -> Reply:
    raise AssertionError


@pytest.mark.parametrize("path", ["/v2/apps", "/metrics", "/invoke/mine", "/ui/mine", "mine", "/"])
async def test_an_endpoint_where_something_is_already(path: str, settings: Settings) -> None:
    extensions = Extensions(driver=sim_driver, endpoints=[Route("GET", path, nothing)])
    with pytest.raises(ConfigError, match=r"endpoints?[: ]"):
        async with open_serve(settings.serve(functions=None), extensions):
            pytest.fail("opened")


SOME: Mapping[str, Any] = {
    "overrider": lambda request, call, extensions: None,
    "call_options": [lambda draft: None],
    "call_listeners": [Bill()],
    "api_listeners": [AppListener()],
    "root_middleware": [mark("x")],
    "api_middleware": [mark("x")],
    "endpoints": [Route("GET", "/mine", nothing)],
    "driver": sim_driver,
    "keep_alive": lambda config: None,
    "placer": NaivePlacer,
    "pool": lambda config: None,
    "functions": lambda given: None,
    "hooks": Hooks(),
    "startup": [fail],
}


@pytest.mark.parametrize("field", SOME)
def test_each_kind_of_node_takes_what_it_has_use_for(field: str, settings: Settings) -> None:
    assert set(SOME) == set(USES)
    for made in (settings.serve(), settings.lb(), settings.runner(), settings.api()):
        given = Extensions(**{field: SOME[field]})
        if made.kind in USES[field]:
            load_extensions(made, given)
            continue
        with pytest.raises(ConfigError) as caught:
            load_extensions(made, given)
        assert str(caught.value) == (
            f"extensions: hostler {made.kind} has no use for {field}, only {', '.join(USES[field])}"
        )


async def test_what_a_node_as_it_is_has_no_use_for(settings: Settings) -> None:
    for given in (Extensions(api_listeners=[AppListener()]), Extensions(api_middleware=[mark("")])):
        with pytest.raises(ConfigError, match="this node has no API"):
            async with open_serve(settings.serve(driver="process"), given):
                pytest.fail("opened")
    with pytest.raises(ConfigError, match="this runner serves no HTTP"):
        async with open_runner(
            settings.runner(driver="process"),
            Extensions(endpoints=[Route("GET", "/mine", nothing)]),
        ):
            pytest.fail("opened")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"call_listeners": Bill()}, "call_listeners: takes a list, not a Bill"),
        ({"call_listeners": [Bill]}, "not the class Bill: give an object of it"),
        ({"call_listeners": "mine:bill"}, "call_listeners: takes a list, not the text 'mine:bill'"),
        ({"api_listeners": [Bill()]}, "api_listeners: takes AppListeners, FnListeners and"),
        ({"endpoints": [nothing]}, "endpoints: takes Routes, not a function"),
        ({"driver": "docker"}, "driver: takes a callable, not a str"),
        ({"startup": [None]}, "startup: takes callables, not None"),
        ({"overrider": lambda call: {}}, "overrider: a call overrider has to take"),
    ],
)
def test_what_a_field_does_not_take_is_told_in_words(fields: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Extensions(**fields)
    assert text in str(caught.value)


async def test_an_opened_part_is_told_how_to_be_given(settings: Settings) -> None:
    async with open_sim_driver({"echo": echo}) as driver:
        with pytest.raises(ConfigError, match=r"open already: lambda config: contextlib\.null"):
            Extensions(driver=driver)  # type: ignore[arg-type]
        given = Extensions(driver=lambda config: nullcontext(driver))
        async with open_serve(settings.serve(), given) as node, asking(node) as client:
            assert (await client.post(ECHO, content=b"x")).content == b"x"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"driver": lambda config: 7}, "must return an async context manager that yields a Driver"),
        ({"driver": lambda config: nullcontext(7)}, "extensions: driver: must yield a Driver"),
        ({"driver": lambda: 7}, r"extensions: driver: TypeError: .* takes 0 positional"),
        (
            {"driver": sim_driver, "keep_alive": lambda config: 7},
            "extensions: keep_alive: must return a KeepAlive, not a int",
        ),
    ],
)
async def test_what_makes_the_wrong_thing_is_told(
    fields: Any, text: str, settings: Settings
) -> None:
    with pytest.raises(ConfigError, match=text):
        async with open_serve(settings.serve(), Extensions(**fields)):
            pytest.fail("opened")


async def test_arguments_of_the_openers_are_checked(settings: Settings) -> None:
    for opener, given, text in (
        (open_lb, {"FN_PORT": "1"}, "settings: takes LBSettings, not a dict"),
        (open_lb, settings.serve(), "settings: takes LBSettings, not a ServeSettings"),
        (open_serve, settings.lb(), "settings: takes ServeSettings, not a LBSettings"),
        (open_lb, settings.lb(), "no FN_RUNNER_ADDRESSES|FN_RUNNER_ADDRESSES"),
        (open_lb, LBSettings(env={"FN_LB_WORKERS": "2"}), "only the hostler command starts"),
        (open_runner, RunnerSettings(env={"FN_RUNNER_WORKERS": "0"}), "only the hostler command"),
    ):
        opener_of: Any = opener
        with pytest.raises(ConfigError, match=text):
            async with opener_of(given):
                pytest.fail("opened")
    with pytest.raises(ConfigError, match="extensions: takes Extensions, not the class Extensions"):
        async with open_serve(settings.serve(), Extensions):  # type: ignore[arg-type]
            pytest.fail("opened")


def test_settings_are_the_variables_of_the_commands(functions: Path) -> None:
    env = {
        "FN_HTTP_BIND": ":81",
        "FN_FUNCTIONS": str(functions),
        "FN_DRIVER": "process",
        "FN_INSECURE": "true",
        "FN_EXTENSIONS": "a:b c",
        "FN_DRAIN_GRACE_MSECS": "7000",
    }
    found = ServeSettings(env=env)
    assert (found.bind, found.driver, found.insecure) == (":81", "process", True)
    assert found.functions is not None
    assert "echo" in found.functions.fns
    assert found.extension_names == ("a:b", "c")
    assert ServeSettings(env={}).bind == "127.0.0.1:8080"
    assert LBSettings(env={"FN_PORT": "80"}).bind == ":80"
    runner = RunnerSettings(env=env)
    assert (runner.bind, runner.http_bind, runner.detached) == (":9190", ":81", True)
    with pytest.raises(ConfigError, match="FN_INSECURE='perhaps': takes true or false"):
        ServeSettings(env={"FN_INSECURE": "perhaps"})
    with pytest.raises(ConfigError, match="TLS needs all three"):
        LBSettings(env={"FN_TLS_CA": "ca.pem"})
