"""Many calls of many functions, whose containers die at any time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import attrs
import trio

from hostler.bodies import BytesBody
from hostler.errors import ContainerInitFailed, FunctionResponseError

from .nodes import Node

EXCUSED = (FunctionResponseError, ContainerInitFailed)
"""What a call is told whose container died under it."""


@attrs.define
class Soak:
    """``calls`` calls from ``clients`` clients, each of a random function, each with a body of
    its own that has to come back."""

    node: Node
    calls: int
    clients: int
    fields: Callable[[random.Random, int], dict[str, object]]
    """The function and the call's other fields, of its number."""
    outcomes: Counter[str] = attrs.Factory(Counter)
    dice: random.Random = attrs.Factory(lambda: random.Random(1))
    on_progress: Callable[[int], None] = lambda begun: None

    async def run(self) -> None:
        numbers = iter(range(self.calls))
        async with trio.open_nursery() as nursery:
            for _ in range(self.clients):
                nursery.start_soon(self._client, numbers)

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:  # shared by all clients
            self.on_progress(number)
            fields = self.fields(self.dice, number)
            image = str(fields.pop("image"))
            body = b"%d" % number
            try:
                recorder = await self.node.run(image, BytesBody(body), id=f"c{number}", **fields)
            except EXCUSED as error:
                self.outcomes[type(error).__name__] += 1
            else:
                assert recorder.body == body
                self.outcomes["success"] += 1
