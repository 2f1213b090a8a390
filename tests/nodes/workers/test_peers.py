"""What the workers of a node tell each other."""

from __future__ import annotations

import socket
import tempfile

import attrs
import msgspec
import pytest
import trio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hostler.config import BodyConfig
from hostler.nodes.workers import PeerWorkers, Place, open_peers
from hostler.nodes.workers.metrics import join_metrics
from hostler.nodes.workers.peers import MAX_QUESTION
from tests.conftest import Logs

from .fleet import open_all, place_of

pytestmark = pytest.mark.usefixtures("autojump_clock")
"""Unix sockets of one process are ready as soon as something is sent."""


def answering(peers: PeerWorkers, text: bytes) -> None:
    async def answer(question: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return text + question

    peers.answer("name", answer)


async def test_all_others_are_asked() -> None:
    async with open_all(3) as (first, second, third):
        answering(second, b"second ")
        answering(third, b"third ")
        assert await first.ask("name", b"?\n") == {1: b"second ?\n", 2: b"third ?\n"}
        assert await second.ask("name") == {2: b"third "}
        assert await first.ask("other") == {}
        large = b"x" * (MAX_QUESTION - 10)
        assert (await first.ask("name", large))[1] == b"second " + large
        assert await first.ask("name", large + b"x" * 10) == {}


async def test_who_is_silent_gone_or_fails_is_left_out(logs: Logs) -> None:
    async def silent(question: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def failing(question: bytes) -> bytes:
        raise ZeroDivisionError

    async with open_all(4) as (first, second, third, fourth):
        second.answer("name", silent)
        third.answer("name", failing)
        answering(fourth, b"fourth")
        assert await first.ask("name") == {3: b"fourth"}
        logs.expect_error("a worker's question failed")
        fourth.place.socket_of(3).unlink()
        assert await first.ask("name") == {}
        logs.expect_error("a worker's question failed")


async def test_an_answer_that_is_broken_off_is_none() -> None:
    """It would be taken for the whole: fewer lines, smaller numbers, fewer images in use."""
    answers: list[dict[int, bytes]] = []
    begun = trio.Event()

    async def much(question: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        begun.set()
        return b"x" * 20_000_000  # more than the socket takes

    async def ask(peers: PeerWorkers) -> None:
        answers.append(await peers.ask("name"))

    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_peers(place_of(0, 2, folder)) as asks,
            trio.open_nursery() as nursery,
            open_peers(place_of(1, 2, folder)) as asked,
        ):
            asked.answer("name", much)
            nursery.start_soon(ask, asks)
            await begun.wait()
    assert answers == [{}]


async def test_one_that_was_killed_leaves_no_obstacle() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = place_of(0, 2, folder)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(place.socket_of(0)))
        async with (
            open_peers(place) as again,
            open_peers(place_of(1, 2, folder)) as other,
        ):
            answering(again, b"back")
            assert await other.ask("name") == {0: b"back"}


def test_a_place_survives_the_environment() -> None:
    place = place_of(1, 3, "/tmp/x y")
    assert msgspec.json.decode(place.text(), type=Place) == place


def test_limits_of_a_node_are_those_of_all_its_workers() -> None:
    place = place_of(1, 3, "/")
    config = BodyConfig(body_memory=10, body_disk=0, body_spill_size=9)
    part = place.part_of(config, "body_memory", "body_disk")
    assert part == BodyConfig(body_memory=4, body_disk=0, body_spill_size=9)


@attrs.frozen
class Registered:
    registry: CollectorRegistry = attrs.Factory(CollectorRegistry)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def test_metrics_are_the_same_but_for_the_label() -> None:
    one = Registered()
    Counter("jobs", 'Jobs, "all"\\n of them', ["kind"], registry=one.registry).labels('a"b\\').inc(
        3
    )
    Gauge("heat", "", registry=one.registry).set(float("inf"))
    Histogram("took_seconds", "Time", registry=one.registry).observe(0.3)
    other = Registered()
    Gauge("only_there", "x", registry=other.registry).set(-1)
    joined = join_metrics({0: one.text(), 2: other.text()}, 3).decode()
    families = {family.name: family for family in text_string_to_metric_families(joined)}
    up = families.pop("fn_worker_up")
    assert [(s.labels, s.value) for s in up.samples] == [
        ({"worker": "0"}, 1),
        ({"worker": "1"}, 0),
        ({"worker": "2"}, 1),
    ]
    assert [s.labels for s in families.pop("only_there").samples] == [{"worker": "2"}]
    expected = {f.name: f for f in text_string_to_metric_families(one.text().decode())}
    assert families.keys() == expected.keys()
    for name, family in families.items():
        assert (family.type, family.documentation) == (
            expected[name].type,
            expected[name].documentation,
        )
        assert [s.labels.pop("worker") for s in family.samples] == ["0"] * len(family.samples)
        assert [(s.name, s.labels, s.value) for s in family.samples] == [
            (s.name, s.labels, s.value) for s in expected[name].samples
        ]
