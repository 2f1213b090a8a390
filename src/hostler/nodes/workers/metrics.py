"""One document of the metrics of all workers: each sample says whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ..._asgi.replies import Reply, error_reply
from ..._asgi.types import Receive, Scope, Send
from ...errors import APIError
from .peers import PeerWorkers

LABEL = "worker"
UP = "fn_worker_up"


class AggregateMetrics:
    """The application at ``/metrics``: what ``registry`` has and what the peers have."""

    def __init__(self, registry: CollectorRegistry, peers: PeerWorkers) -> None:
        self._registry = registry
        self._peers = peers
        self._scrapes = trio.CapacityLimiter(1)
        peers.answer("metrics", self._own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path != "/metrics":
            await error_reply(APIError(404, f"Path not found: {method} {path}")).send(send)
        elif method != "GET":
            await error_reply(APIError(405, f"Method not allowed: {method} {path}")).send(send)
        else:
            headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
            await Reply(200, await self._all(), headers).send(send)

    async def _own(self, _: bytes = b"") -> bytes:
        return await self._made(lambda: generate_latest(self._registry))

    async def _all(self) -> bytes:
        place = self._peers.place
        texts = await self._peers.ask("metrics")
        texts[place.number] = await self._own()
        return await self._made(lambda: join_metrics(texts, place.count))

    async def _made(self, make: Callable[[], bytes]) -> bytes:
        """On a thread, one at a time, as `hostler.front.NodeApp` does it."""
        return await trio.to_thread.run_sync(make, limiter=self._scrapes, abandon_on_cancel=True)


def join_metrics(texts: Mapping[int, bytes], count: int) -> bytes:
    """One exposition of those of each worker, by its number; ``count`` is how many there are."""
    return generate_latest(_Joined(texts, count))


class _Joined(Collector):
    def __init__(self, texts: Mapping[int, bytes], count: int) -> None:
        self._texts = texts
        self._count = count

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for number, text in sorted(self._texts.items()):
            for family in text_string_to_metric_families(text.decode()):
                kept = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type, family.unit)
                )
                kept.samples.extend(_labelled(family.samples, number))
        yield from families.values()
        up = Metric(UP, "Whether a worker of this node has answered for its metrics", "gauge")
        for number in range(self._count):
            up.add_sample(UP, {LABEL: str(number)}, float(number in self._texts))
        yield up


def _labelled(samples: Iterable[Sample], number: int) -> Iterator[Sample]:
    for sample in samples:
        yield sample._replace(labels={**sample.labels, LABEL: str(number)})
