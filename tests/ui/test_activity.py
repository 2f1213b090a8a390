"""What is recorded of calls, and what the application tells of it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from hostler.calls import Timings
from hostler.errors import APIError, CallTimeout, ServerBusy
from hostler.functions import FunctionTable
from hostler.models import App, Fn
from hostler.ui import Activity, Directory, ui_app
from hostler.ui.activity import MAX_FUNCTIONS, RECENT_CALLS
from hostler.ui.app import LAST_SECONDS, MAX_VIEWERS
from hostler.ui.panel import MAX_LISTED
from hostler.ui.seconds import KEPT_SECONDS, Second, SecondBuckets
from tests.front._asgi_client import AsgiRequest

from .panels import Clock, call, note, panel

APP = App(id="a1", name="shop", config={"KEY": "hunter2"})
FN = Fn(id="f1", name="checkout", app_id="a1", image="img", config={"PIN": "hunter2"})


async def get(app: object, path: str, method: str = "GET") -> AsgiRequest:
    return await AsgiRequest(path, method=method).body().run(app)  # type: ignore[arg-type]


def test_seconds_have_rates_and_latencies() -> None:
    seconds = SecondBuckets()
    for number in range(100):
        seconds.add(10, (number + 1) * 1_000_000, failed=number == 0)
    assert seconds.since(0, 10) == []  # it is not over
    (counted,) = seconds.since(0, 11)
    second = Second.of([counted])
    assert (second.at, second.calls, second.failed) == (10, 100, 1)
    assert second.p50 == pytest.approx(50, rel=0.06)
    assert second.p99 == pytest.approx(99, rel=0.06)
    assert seconds.since(10, 12) == []


def test_seconds_are_forgotten() -> None:
    seconds = SecondBuckets()
    for at in range(1, 1001):
        seconds.add(at, 1, failed=False)
    assert len(seconds.since(0, 1001)) == KEPT_SECONDS
    assert seconds.since(0, 5000) == []


def test_memory_is_bounded() -> None:
    activity = Activity()
    for number in range(3 * MAX_FUNCTIONS):
        note(activity, call(f"f{number}"))
    assert len(list(activity.functions())) == MAX_FUNCTIONS
    assert len(activity.recent_since(0)) == RECENT_CALLS
    assert [row.seq for row in activity.recent_since(activity.calls - 2)] == [2999, 3000]
    assert activity.recent_since(activity.calls) == []


@pytest.mark.parametrize(
    ("status", "error", "outcome", "message"),
    [
        ("success", None, "success", ""),
        ("timeout", CallTimeout(), "timeout", CallTimeout().message),
        ("", ServerBusy(), "refused", ServerBusy().message),
        ("error", APIError(502, "no such image"), "error", "no such image"),
        ("error", OSError("/secret/path"), "error", APIError().message),
    ],
)
def test_outcomes(status: str, error: Exception | None, outcome: str, message: str) -> None:
    activity = Activity()
    activity.note_end(call(status=status, error=str(error or "")), error, began=True)
    (row,) = activity.recent_since(0)
    assert (row.outcome, row.message) == (outcome, message)


async def test_a_cancelled_call_has_no_message() -> None:
    activity = Activity()
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            activity.note_end(call(status="error", error="cancelled"), cancelled, began=True)
            raise
    (row,) = activity.recent_since(0)
    assert (row.outcome, row.message) == ("cancelled", "")


def test_calls_that_never_began_count_only_where_clients_hear_of_them() -> None:
    front, runner = Activity(), Activity(only_begun=True)
    for activity in (front, runner):
        activity.note_end(call(status="error"), ServerBusy(), began=False)
        activity.note_end(call(status="error"), ServerBusy(), began=True)
    assert (front.calls, runner.calls) == (2, 1)


def test_the_stages_of_a_call_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostler.ui.activity.time", Clock(10.0, 100_000_000))
    activity = Activity()
    one = call()
    one.timings = Timings(
        scheduler_ns=60_000_000,
        execution_ns=30_000_000,
        image_pull_wait_ns=40_000_000,
        ctr_create_ns=15_000_000,
        init_start_ns=10_000_000,
    )
    note(activity, one)
    (row,) = activity.recent_since(0)
    stages = row.stages
    # The pull had begun before the call waited for it.
    assert (stages.queue, stages.pull, stages.create, stages.init) == (0, 35, 15, 10)
    assert (stages.execution, stages.transit, row.ms) == (30, 10, 100)


async def test_the_list_of_functions_is_bounded() -> None:
    fns = [Fn(id=f"f{n}", name=f"n{n}", app_id="a1", image="i") for n in range(MAX_LISTED + 1)]
    for count, complete in ((MAX_LISTED, True), (MAX_LISTED + 1, False)):
        directory = Directory(FunctionTable.of([APP], fns[:count]))
        await directory.refresh()
        listing = directory.listing
        assert listing is not None
        assert (len(listing.functions), listing.complete) == (MAX_LISTED, complete)


async def test_the_state_has_names_and_no_secrets() -> None:
    activity = Activity()
    table = FunctionTable.of([APP], [FN, Fn(id="f2", name="other", app_id="a1", image="i")])
    note(activity, call(fn_name="checkout"))
    shown = panel(activity)
    shown.directory = Directory(table)
    answer = await get(ui_app(shown, trio.Event()), "/ui/state.json")
    state = json.loads(answer.content)
    assert [(fn["name"], fn["calls"]) for fn in state["functions"]] == [
        ("checkout", 1),
        ("other", 0),
    ]
    assert state["recent"][0]["fn"] == "checkout"
    assert state["listing"] == "complete"
    assert b"hunter2" not in answer.content


async def test_a_database_that_is_down_costs_only_the_names() -> None:
    async def down(where: object) -> None:
        raise APIError(503, "down")

    store: Any = SimpleNamespace(apps=SimpleNamespace(list=down))
    activity = Activity()
    note(activity, call())
    shown = panel(activity)
    shown.directory = Directory(store)
    state = json.loads((await get(ui_app(shown, trio.Event()), "/ui/state.json")).content)
    assert (state["listing"], len(state["functions"])) == ("stale", 1)


@pytest.mark.parametrize("path", ["/ui/", "/ui/page.js", "/ui/state.json", "/ui/nothing", "/ui"])
async def test_every_answer_is_guarded(path: str) -> None:
    app = ui_app(panel(Activity()), trio.Event())
    answer = await get(app, path)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.status == {"/ui/nothing": 404, "/ui": 301}.get(path, 200)
    assert (await get(app, path, "POST")).status == 405


async def test_a_file_that_a_browser_has_is_not_sent_again() -> None:
    app = ui_app(panel(Activity()), trio.Event())
    etag = (await get(app, "/ui/page.css")).headers["etag"]
    again = AsgiRequest("/ui/page.css", method="GET", headers=[("If-None-Match", etag)])
    assert (await again.run(app)).status == 304
    assert again.content == b""


async def test_events_begin_with_all_and_go_on_with_what_is_new(
    autojump_clock: trio.abc.Clock,
) -> None:
    activity, closing = Activity(), trio.Event()
    note(activity, call())
    viewer = AsgiRequest("/ui/events", method="GET").body()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer.run, ui_app(panel(activity), closing))
        await trio.sleep(0.5)
        note(activity, call())
        await trio.sleep(1)
        closing.set()
    assert viewer.complete
    events = viewer.content.decode().split("\n\n")[:-1]
    names = [event.partition("\n")[0] for event in events]
    assert names == ["event: state", "event: tick"]
    seqs = [
        [row["seq"] for row in json.loads(event.partition("data: ")[2])["recent"]]
        for event in events
    ]
    assert seqs == [[1], [2]]


async def test_a_drain_does_not_wait_for_a_viewer_that_stands_still(
    autojump_clock: trio.abc.Clock,
) -> None:
    closing = trio.Event()

    class Still(AsgiRequest):
        async def _send(self, message: Any) -> None:
            await super()._send(message)
            if message["type"] == "http.response.body":
                await trio.sleep_forever()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            viewer = Still("/ui/events", method="GET").body()
            nursery.start_soon(viewer.run, ui_app(panel(Activity()), closing))
            await trio.sleep(5)
            closing.set()
    assert trio.current_time() <= 5 + LAST_SECONDS
    assert not viewer.complete


async def test_viewers_are_few_and_leave_nothing_behind(autojump_clock: trio.abc.Clock) -> None:
    closing = trio.Event()
    app = ui_app(panel(Activity()), closing)
    viewers = [AsgiRequest("/ui/events", method="GET").body() for _ in range(MAX_VIEWERS)]
    async with trio.open_nursery() as nursery:
        for viewer in viewers:
            nursery.start_soon(viewer.run, app)
        await trio.sleep(0.5)
        refused = await get(app, "/ui/events")
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        for viewer in viewers:
            viewer.disconnect()
        await trio.sleep(0.5)
        assert not nursery.child_tasks
        last = AsgiRequest("/ui/events", method="GET").body()
        nursery.start_soon(last.run, app)
        await trio.sleep(0.5)
        closing.set()
    assert last.status == 200
    assert (await get(app, "/ui/events")).status == 503
