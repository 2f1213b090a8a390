"""The pure runner at message level: order of frames, bad frames, outcomes, detached calls."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hostler.bodies import BodyBudget
from hostler.calls import CallDraft, PendingCall
from hostler.config import BodyConfig
from hostler.errors import (
    APIError,
    CallTimeout,
    ContainerInitFailed,
    FunctionError,
    ImageWithVolume,
    ServerBusy,
)
from hostler.protocol import ClientFrame, Data, GRPCStatus, LogChannel, ResultStart, TryCall
from hostler.runner.engagement import AcknowledgeDetached
from hostler.runner.service import PureRunnerService, RunnerOptions
from hostler.runner.status import Hooks
from tests.conftest import Logs
from tests.runner.fakes import PlayedEngagement, ToldAgent

from .fakes import a_try, engage


async def never(call: PendingCall) -> None:
    raise AssertionError("the call ran")


@asynccontextmanager
async def detaching(
    agent: ToldAgent, bodies: BodyBudget | None = None, limit: float = math.inf
) -> AsyncIterator[PureRunnerService]:
    """A service that keeps the bodies of detached calls in ``bodies``."""
    agent.add_listener(AcknowledgeDetached(bodies, limit))
    async with trio.open_nursery() as nursery:
        yield PureRunnerService(agent, RunnerOptions(), nursery)


async def test_the_order_of_a_call() -> None:
    engagement = PlayedEngagement(
        a_try(), Data(b"hello "), Data(b""), Data(b"world"), Data(b"", eof=True)
    )
    service = await engage(engagement)
    assert engagement.heads() == [ResultStart(200, [("Content-Type", "text/plain")])]
    assert engagement.body() == b"hello world"
    outcome = engagement.finished()
    assert outcome.success
    assert outcome.details == "call-1"
    assert outcome.image == "hello"
    counts = service.statistics()
    assert (counts.active, counts.received, counts.handled) == (0, 1, 1)


async def test_an_empty_body_is_one_eof_frame() -> None:
    engagement = PlayedEngagement(a_try(), Data(b"", eof=True))
    agent = ToldAgent()
    await engage(engagement, agent)
    assert agent.submitted[0].body.data == b""
    assert engagement.body() == b""
    assert engagement.finished().success


async def test_frames_of_any_size_are_taken() -> None:
    body = bytes(300_000)
    engagement = PlayedEngagement(a_try(), Data(body), Data(body, eof=True))
    await engage(engagement)
    assert len(engagement.body()) == 600_000


async def test_data_after_eof_is_not_read() -> None:
    engagement = PlayedEngagement(a_try(), Data(b"a", eof=True), Data(b"late"))
    await engage(engagement)
    assert engagement.body() == b"a"
    assert engagement.finished().success


@pytest.mark.parametrize(
    ("frames", "end", "expected"),
    [
        ([Data(b"x")], False, "expected ClientMsg_Try"),
        ([], True, "expected ClientMsg_Try"),
        ([a_try(), a_try()], False, "expected ClientMsg_Data"),
        ([a_try()], True, "expected ClientMsg_Data"),
        ([a_try(), Data(b"x")], True, "expected ClientMsg_Data"),
        ([a_try(), Data(b"x"), a_try()], False, "expected ClientMsg_Data"),
    ],
    ids=["data first", "nothing", "try twice", "no data", "missing eof", "try inside body"],
)
async def test_a_broken_order_ends_the_stream_with_unknown(
    frames: list[ClientFrame], end: bool, expected: str
) -> None:
    engagement = PlayedEngagement(*frames, end=end)
    with pytest.raises(GRPCStatus, match=f"Protocol failure: {expected}") as caught:
        await engage(engagement)
    assert caught.value.status == 2


async def test_a_bad_model_is_a_500_that_names_the_part(logs: Logs) -> None:
    """Weakness 01/1: Fn answers code 0, which its LB turns into a 200."""
    engagement = PlayedEngagement(TryCall('{"memory": -1}'), Data(b"", eof=True))
    await engage(engagement)
    outcome = engagement.finished()
    assert not outcome.success
    assert outcome.error_code == 500
    assert "invalid call model" in outcome.error_text
    assert "memory" in outcome.error_text
    assert not outcome.error_user
    assert len(logs.with_event("bad try frame")) == 1


async def test_bad_hex_is_a_500_that_names_the_part() -> None:
    engagement = PlayedEngagement(a_try(slot="zz"), Data(b"", eof=True))
    await engage(engagement)
    assert engagement.finished().error_code == 500
    assert "invalid slot_hash_id" in engagement.finished().error_text


async def test_the_slot_key_and_extensions_reach_the_agent() -> None:
    agent = ToldAgent()
    key = bytes(range(32))
    await engage(
        PlayedEngagement(
            a_try(slot=key.hex(), extensions={"a": "b"}), Data(b"", eof=True), request_id="r-1"
        ),
        agent,
    )
    call = agent.submitted[0]
    assert call.slot_hash_id == key
    assert call.extensions == {"a": "b"}
    assert call.request_id == "r-1"


async def test_dates_are_this_machine_s() -> None:
    engagement = PlayedEngagement(a_try(), Data(b"", eof=True))
    agent = ToldAgent()
    await engage(engagement, agent)
    model = agent.submitted[0].model
    assert model.created_at is not None
    assert model.created_at.year > 2001
    assert model.started_at is None
    assert model.completed_at is None
    assert engagement.finished().started_at == ""
    assert engagement.finished().completed_at == ""


async def test_the_status_image_is_reserved() -> None:
    engagement = PlayedEngagement(a_try(), Data(b"", eof=True))
    await engage(engagement, status_image="hello")
    assert engagement.finished().error_code == 400
    assert engagement.finished().error_text == "Invalid Fn image"


@pytest.mark.parametrize(
    "error",
    [ServerBusy(), CallTimeout(), ContainerInitFailed(), ImageWithVolume(), APIError(418, "tea")],
    ids=repr,
)
async def test_outcomes_carry_code_text_and_blame(error: APIError) -> None:
    async def fail(call: PendingCall) -> None:
        raise error

    engagement = PlayedEngagement(a_try(), Data(b"", eof=True))
    service = await engage(engagement, ToldAgent(fail))
    outcome = engagement.finished()
    assert not outcome.success
    assert (outcome.error_code, outcome.error_text) == (error.code, error.message)
    assert outcome.error_user == isinstance(error, FunctionError)
    # Weakness 01/3: a NACK was received, but not handled.
    assert service.statistics().handled == (0 if isinstance(error, ServerBusy) else 1)


@pytest.mark.parametrize("error", [ValueError("secret"), APIError(0, "secret")], ids=repr)
async def test_an_internal_error_is_a_500_that_tells_nothing(error: Exception, logs: Logs) -> None:
    """Weakness 01/1, 06/3."""

    async def fail(call: PendingCall) -> None:
        raise error

    engagement = PlayedEngagement(a_try(), Data(b"", eof=True))
    await engage(engagement, ToldAgent(fail))
    outcome = engagement.finished()
    assert (outcome.error_code, outcome.error_text) == (500, "internal server error")
    assert logs.expect_error("call failed inside the runner")["call_id"] == "call-1"


async def test_an_option_that_fails_ends_the_call_with_its_code() -> None:
    def refuse(draft: CallDraft) -> None:
        raise APIError(403, "not here")

    agent = ToldAgent()
    agent.options = [refuse]
    engagement = PlayedEngagement(a_try(), Data(b"", eof=True))
    await engage(engagement, agent)
    assert engagement.finished().error_code == 403


async def test_an_answer_before_the_end_of_the_request_is_accepted() -> None:
    """Weakness 01/2: no race between the answer and the eof frame; the answer counts."""

    async def answer_at_once(call: PendingCall) -> None:
        await call.writer.start(200, [])
        await call.writer.write(b"early")

    engagement = PlayedEngagement(a_try(), Data(b"part"))
    await engage(engagement, ToldAgent(answer_at_once))
    assert engagement.body() == b"early"
    assert engagement.finished().success


async def test_cancelling_the_engagement_cancels_the_call() -> None:
    ended = []

    async def hang(call: PendingCall) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    engagement = PlayedEngagement(a_try(), Data(b"", eof=True))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engage, engagement, ToldAgent(hang))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert ended == [True]
    assert engagement.sent == []


class TestDetached:
    async def test_acknowledged_once_it_has_its_slot_then_finished(self) -> None:
        engagement = PlayedEngagement(a_try(type="detached"), Data(b"in", eof=True))
        await engage(engagement)
        assert engagement.heads() == [ResultStart(202)]
        assert engagement.body() == b""
        assert engagement.finished().success

    async def test_refused_where_not_supported(self) -> None:
        engagement = PlayedEngagement(a_try(type="detached"), Data(b"", eof=True))
        await engage(engagement, detached=False)
        assert engagement.finished().error_code == 501
        assert "not supported" in engagement.finished().error_text

    async def test_not_acknowledged_when_it_got_no_slot(self) -> None:
        agent = ToldAgent()

        async def submit(call: PendingCall) -> None:
            raise ServerBusy

        agent.submit = submit  # type: ignore[method-assign]
        engagement = PlayedEngagement(a_try(type="detached"), Data(b"", eof=True))
        await engage(engagement, agent)
        assert engagement.heads() == []
        assert engagement.finished().error_code == 503

    async def test_a_broken_body_ends_the_stream_without_an_acknowledgement(self) -> None:
        ran: list[PendingCall] = []

        async def run(call: PendingCall) -> None:
            ran.append(call)

        engagement = PlayedEngagement(a_try(type="detached", timeout=9), Data(b"part"), end=True)
        with pytest.raises(GRPCStatus, match="expected ClientMsg_Data"):
            await engage(engagement, ToldAgent(run))
        assert engagement.sent == []
        assert ran == []

    async def test_weakness_03_16_survives_the_loss_of_its_lb(self) -> None:
        release = trio.Event()
        served = []

        async def wait(call: PendingCall) -> None:
            await release.wait()
            served.append(call.model.id)

        await self._lose_lb(ToldAgent(wait), release, a_try(type="detached"))
        assert served == ["call-1"]

    async def test_acknowledged_only_with_its_whole_body(self) -> None:
        """From then on nothing of the call depends on its LB."""
        read: list[bytes] = []

        async def run(call: PendingCall) -> None:
            async with call.body.open() as stream:
                read.append(b"".join([bytes(piece) async for piece in stream]))

        agent = ToldAgent(run)
        async with detaching(agent) as service:
            engagement = PlayedEngagement(a_try(type="detached", timeout=9), Data(b"be"))
            async with trio.open_nursery() as stream:
                stream.start_soon(service.engage, engagement)
                await trio.testing.wait_all_tasks_blocked()
                assert engagement.sent == []
                engagement.play(Data(b"gin"))
                engagement.play(Data(b"", eof=True))
                await engagement.wait_sent(ResultStart)
                stream.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
        assert read == [b"begin"]

    async def test_a_call_whose_lb_is_lost_within_its_body_does_not_run(self) -> None:
        bodies, agent = BodyBudget(), ToldAgent(never)
        async with detaching(agent, bodies) as service:
            engagement = PlayedEngagement(a_try(type="detached", timeout=9), Data(b"part"))
            async with trio.open_nursery() as stream:
                stream.start_soon(service.engage, engagement)
                await trio.testing.wait_all_tasks_blocked()
                assert bodies.memory == len(b"part")
                stream.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert service.statistics().detached == 0
        assert bodies.memory == 0
        assert engagement.sent == []

    async def test_an_acknowledgement_that_breaks_the_engagement_is_kept(self) -> None:
        """The LB may have it all the same."""
        served: list[str] = []

        async def run(call: PendingCall) -> None:
            served.append(call.model.id)

        async with detaching(ToldAgent(run)) as service:
            engagement = PlayedEngagement(a_try(type="detached"), Data(b"in", eof=True))
            engagement.breaks_with_ack = True
            await service.engage(engagement)
        assert served == ["call-1"]

    async def test_a_body_over_the_limit_is_refused_for_good(self) -> None:
        for data in (Data(b"x" * 11, eof=True), Data(b"x" * 10)):
            bodies, agent = BodyBudget(), ToldAgent(never)
            async with detaching(agent, bodies, limit=10) as service:
                engagement = PlayedEngagement(a_try(type="detached", timeout=9), data)
                engagement.play(Data(b"x", eof=True))
                await service.engage(engagement)
            assert engagement.heads() == []
            assert engagement.finished().error_code == 413
            assert bodies.memory == 0

    async def test_a_body_without_room_is_refused_so_that_others_may_take_it(self) -> None:
        bodies = BodyBudget(BodyConfig(body_memory=10, body_disk=0))
        async with detaching(ToldAgent(never), bodies) as service:
            engagement = PlayedEngagement(a_try(type="detached", timeout=9), Data(b"x" * 10))
            engagement.play(Data(b"x", eof=True))
            await service.engage(engagement)
        assert engagement.heads() == []
        assert engagement.finished().error_code == 503
        assert service.statistics().handled == 0
        assert (bodies.memory, bodies.not_kept["no_room"]) == (0, 1)

    async def test_a_body_on_a_broken_disk_is_refused_so_that_others_may_take_it(
        self, tmp_path: Path, logs: Logs
    ) -> None:
        bodies = BodyBudget(BodyConfig(body_spill_size=1, body_dir=str(tmp_path / "none")))
        async with detaching(ToldAgent(never), bodies) as service:
            engagement = PlayedEngagement(a_try(type="detached", timeout=9), Data(b"xx", eof=True))
            await service.engage(engagement)
        assert engagement.finished().error_code == 503
        logs.expect_error("bodies can't be written to disk")

    async def test_a_body_has_the_time_of_its_call(self, autojump_clock: object) -> None:
        began = trio.current_time()
        async with detaching(ToldAgent(never)) as service:
            engagement = PlayedEngagement(a_try(type="detached", timeout=9), Data(b"part"))
            await service.engage(engagement)
        assert trio.current_time() - began == pytest.approx(9)
        assert engagement.heads() == []
        assert engagement.finished().error_code == 504

    async def test_what_it_takes_is_given_back_with_its_end(self) -> None:
        bodies = BodyBudget(BodyConfig(body_spill_size=10))
        seen: list[tuple[int, int]] = []

        async def run(call: PendingCall) -> None:
            seen.append((bodies.memory, bodies.disk))
            raise FunctionError(502, "failed")

        for size in (10, 11):
            data = Data(b"x" * size, eof=True)
            async with detaching(ToldAgent(run), bodies) as service:
                await service.engage(PlayedEngagement(a_try(type="detached", timeout=9), data))
        assert seen == [(10, 0), (0, 11)]
        assert (bodies.memory, bodies.disk) == (0, 0)

    async def _lose_lb(self, agent: ToldAgent, release: trio.Event, call: TryCall) -> None:
        async with detaching(agent) as service:
            engagement = PlayedEngagement(call, Data(b"part", eof=True))
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as stream:
                    stream.start_soon(service.engage, engagement)
                    await engagement.wait_sent(ResultStart)
                    scope.cancel()
            assert service.statistics().active == 0
            assert service.statistics().detached == 1
            release.set()

    async def test_dies_with_its_lb_before_it_is_acknowledged(self) -> None:
        agent = ToldAgent()

        async def submit(call: PendingCall) -> None:
            await trio.sleep_forever()

        agent.submit = submit  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            service = PureRunnerService(agent, RunnerOptions(), nursery)
            engagement = PlayedEngagement(a_try(type="detached"), Data(b"", eof=True))
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as stream:
                    stream.start_soon(service.engage, engagement)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
        assert service.statistics().detached == 0


class TestOtherRPCs:
    async def test_status_counts(self) -> None:
        service = await engage(PlayedEngagement(a_try(), Data(b"", eof=True)))
        status = await service.status(None)
        assert (status.active, status.requests_received, status.requests_handled) == (0, 1, 1)

    async def test_custom_health(self, nursery: trio.Nursery) -> None:
        async def healthy() -> dict[str, str]:
            return {"disk": "ok"}

        service = self._service(nursery, Hooks(health_checker=healthy))
        assert (await service.status("{}")).custom_status == {"disk": "ok"}

    async def test_failing_health_check_carries_its_code(self, nursery: trio.Nursery) -> None:
        async def ill() -> dict[str, str]:
            raise APIError(450, "no disk")

        status = await self._service(nursery, Hooks(health_checker=ill)).status(None)
        assert (status.failed, status.error_code, status.error_text) == (True, 450, "no disk")

    async def test_configure(self, nursery: trio.Nursery, logs: Logs) -> None:
        taken: list[object] = []

        async def take(config: object) -> None:
            taken.append(config)

        await self._service(nursery, Hooks(configure=take)).configure({"a": "b"})
        assert taken == [{"a": "b"}]
        await self._service(nursery, Hooks()).configure({"secret": "value"})
        (warning,) = logs.with_event("no config handler")
        assert warning["keys"] == ["secret"]

    async def test_logs_without_a_streamer(self, nursery: trio.Nursery) -> None:
        class NoChannel(LogChannel):
            async def receive(self) -> None: ...
            async def send(self, batch: object) -> None: ...

        with pytest.raises(GRPCStatus, match="runner not configured with logStreamer"):
            await self._service(nursery, Hooks()).stream_logs(NoChannel())

    def _service(self, nursery: trio.Nursery, hooks: Hooks) -> PureRunnerService:
        return PureRunnerService(ToldAgent(), RunnerOptions(hooks=hooks), nursery)
