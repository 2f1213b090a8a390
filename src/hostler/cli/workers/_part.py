"""What one of the runners that are workers of a node has of the machine. Pure."""

from __future__ import annotations

import uuid

import attrs
import msgspec

from hostler.config import AgentConfig


class RunnerPart(msgspec.Struct, frozen=True, kw_only=True):
    """Of worker ``number`` among ``count``. All parts together are what one runner would have."""

    number: int
    count: int
    bind: str
    """Where it serves load balancers, and nobody else does."""
    memory: int
    """Bytes for its containers; not measured again when it is started again, as a runner that goes
    on does not."""
    cpus: int
    """Milli-CPUs for them."""
    family: str
    """Of all workers of this node, and of no other node."""

    def agent_config(self, config: AgentConfig) -> AgentConfig:
        """``config`` with this worker's part of what is for the machine.

        What is done once for an engine, loading an archive of images, is left to the first worker.
        """
        pool = config.experimental_prefork_pool_size
        return attrs.evolve(
            config,
            launch_concurrency=max(1, self._of(config.launch_concurrency)),
            experimental_prefork_pool_size=None if pool is None else self._of(pool),
            prepared_networks=self._of(config.prepared_networks),
            prepared_networks_limit=self._of(config.prepared_networks_limit),
            docker_load_file="" if self.number else config.docker_load_file,
        )

    def labelled(self, config: AgentConfig) -> AgentConfig:
        """``config`` with a label tag for containers, by which a worker finds those that its
        predecessor has left: nothing else would remove them."""
        return attrs.evolve(config, container_label_tag=config.container_label_tag or self.family)

    def instance_id(self) -> str:
        """A new one, for the labels of containers."""
        return f"{self.family}.{uuid.uuid4().hex}"

    def _of(self, total: int) -> int:
        return part_of(total, self.number, self.count)


def part_of(total: int, number: int, count: int) -> int:
    """The part of ``number``, from 0, of ``count`` that are as equal as whole numbers can be, the
    larger ones first."""
    return (total + count - 1 - number) // count
