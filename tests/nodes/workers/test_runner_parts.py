"""What runners that are workers of one node have of their machine."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hostler.agent import Resources
from hostler.config import AgentConfig
from hostler.errors import ConfigError
from hostler.front import address_of, open_listeners
from hostler.nodes.workers import RunnerPart, runners
from hostler.nodes.workers.peers import part_of
from hostler.nodes.workers.runners import RunnerWorkers, binds_of, open_ports, reachable

TOTAL = Resources(10**9 + 1, 3000)
COUNTS = st.integers(1, 256)


def crew(count: int, bind: str = "127.0.0.1:4001", total: Resources = TOTAL) -> RunnerWorkers:
    return RunnerWorkers(binds_of(bind, count), "", total)


def parts(count: int, total: Resources = TOTAL) -> list[RunnerPart]:
    made = crew(count, total=total)
    return [made.part(number) for number in range(count)]


@given(total=st.integers(0, 2**63), count=COUNTS)
def test_parts_are_equal_and_lose_nothing(total: int, count: int) -> None:
    found = [part_of(total, number, count) for number in range(count)]
    assert sum(found) == total
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] <= 1


@given(memory=st.integers(256, 2**50), cpus=st.integers(256, 10**6), count=COUNTS)
def test_all_together_have_what_one_runner_would(memory: int, cpus: int, count: int) -> None:
    found = parts(count, Resources(memory, cpus))
    assert sum(part.memory for part in found) == memory
    assert sum(part.cpus for part in found) == cpus
    assert all(part.memory and part.cpus for part in found)


@given(pool=st.integers(0, 10_000), launches=st.integers(1, 1000), count=COUNTS)
def test_settings_of_the_machine_are_divided(pool: int, launches: int, count: int) -> None:
    config = AgentConfig(
        experimental_prefork_pool_size=pool,
        prepared_networks=pool,
        launch_concurrency=launches,
        docker_load_file="/images.tar",
        max_pids=7,
    )
    found = [part.agent_config(config) for part in parts(count)]
    assert sum(each.experimental_prefork_pool_size or 0 for each in found) == pool
    assert sum(each.prepared_networks for each in found) == pool
    # None can do without.
    assert sum(each.launch_concurrency for each in found) == max(launches, count)
    assert [each.docker_load_file for each in found] == ["/images.tar"] + [""] * (count - 1)
    assert {each.max_pids for each in found} == {7}


def test_who_asked_for_no_pool_asks_for_no_part_of_one() -> None:
    found = [part.agent_config(AgentConfig()) for part in parts(3)]
    assert [each.experimental_prefork_pool_size for each in found] == [None] * 3
    assert [each.prepared_networks for each in found] == [6, 5, 5]
    assert [each.prepared_networks_limit for each in found] == [11, 11, 10]


def test_containers_of_workers_have_a_label() -> None:
    first, second = parts(2)
    other = crew(2).part(0)
    tag = first.labelled(AgentConfig()).container_label_tag
    assert tag == second.labelled(AgentConfig()).container_label_tag
    assert tag != other.labelled(AgentConfig()).container_label_tag
    own = AgentConfig(container_label_tag="mine")
    assert first.labelled(own).container_label_tag == "mine"
    ids = {part.instance_id() for part in (first, first, second)}
    assert len(ids) == 3
    assert {id_.partition(".")[0] for id_ in ids} == {first.family}


@pytest.mark.parametrize(
    ("bind", "binds"),
    [
        ("127.0.0.1:9190", ["127.0.0.1:9190", "127.0.0.1:9191", "127.0.0.1:9192"]),
        ("[::1]:65533", ["[::1]:65533", "[::1]:65534", "[::1]:65535"]),
        (":7", [":7", ":8", ":9"]),
        ("localhost:0", ["localhost:0"] * 3),
    ],
)
def test_each_has_a_port_of_its_own(bind: str, binds: list[str]) -> None:
    assert binds_of(bind, 3) == binds


def test_what_can_not_be_divided_is_told() -> None:
    with pytest.raises(ConfigError, match="3 workers need 3 ports, from this one on"):
        binds_of("127.0.0.1:65534", 3)
    with pytest.raises(ConfigError, match="3 milli-CPUs are too little for 4 workers"):
        crew(4, total=Resources(10**9, 3))
    with pytest.raises(ConfigError, match="3 bytes of memory"):
        crew(4, total=Resources(3, 4000))


def test_load_balancers_are_told_of_all() -> None:
    made = crew(2)
    made.joined(1, {"grpc": "127.0.0.1:4002"})
    made.joined(0, {"grpc": "127.0.0.1:4001"})
    assert [made.part(number).bind for number in (0, 1)] == ["127.0.0.1:4001", "127.0.0.1:4002"]
    assert made.announcement([]) == {
        "grpc": ["127.0.0.1:4001", "127.0.0.1:4002"],
        "runners": "127.0.0.1:4001,127.0.0.1:4002",
        "worker_memory": TOTAL.memory // 2,
        "worker_mcpus": TOTAL.cpus // 2,
    }
    assert made.announcement(["[::]:80"])["http"] == ["[::]:80"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
async def test_ports_are_kept_from_others_also_while_nobody_listens(host: str) -> None:
    """A name, which may stand for several addresses, stays one."""
    async with open_ports(f"{host}:0", 2) as binds:
        assert len(set(binds)) == 2
        assert {bind.rpartition(":")[0] for bind in binds} == {host}
        for bind in 2 * binds:
            port = int(bind.rpartition(":")[2])
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=10)
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
            async with open_listeners(bind) as listeners:
                assert {each.socket.getsockname()[1] for each in listeners} == {port}
                socket.create_connection(("127.0.0.1", port), timeout=10).close()


async def test_a_port_that_is_not_free_on_all_addresses_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports: list[int] = []

    @asynccontextmanager
    async def listen_on_two(bind: str) -> AsyncIterator[list[trio.SocketListener]]:
        async with open_listeners("127.0.0.1:0") as one:
            ports.append(one[0].socket.getsockname()[1])
            if len(ports) == 1:
                somebody.enter_context(socket.create_server(("127.0.0.2", ports[0])))
            async with open_listeners("127.0.0.2:0") as two:
                yield [*one, *two]

    monkeypatch.setattr(runners, "open_listeners", listen_on_two)
    with ExitStack() as somebody:
        async with open_ports("name:0", 1) as binds:
            assert len(ports) > 1
            assert binds == [f"name:{ports[-1]}"]


async def test_ports_that_were_asked_for_are_left_alone() -> None:
    async with open_listeners("127.0.0.1:0") as listeners:
        bind = address_of(listeners[0])
        async with open_ports(bind, 1) as binds:
            assert binds == [bind]


def test_an_address_for_load_balancers_names_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostler.nodes.workers.runners.own_address", lambda: "10.0.0.7")
    assert reachable("[::]:9190") == "10.0.0.7:9190"
    assert reachable("0.0.0.0:9190") == "10.0.0.7:9190"
    assert reachable("[::1]:9190") == "[::1]:9190"
    monkeypatch.setattr("hostler.nodes.workers.runners.own_address", lambda: None)
    assert reachable("[::]:9190") == "127.0.0.1:9190"
