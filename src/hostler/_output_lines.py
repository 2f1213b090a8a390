"""What functions print, as lines that belong to calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import attrs
import trio

from .abc import OutputPiece

MAX_LINE = 16 * 1024
"""Bytes of a line; a longer one comes in pieces."""
LINGER = 0.05
"""Seconds after the end of its call in which the rest of a line may still come: output and response
take different ways. Then it counts as it is."""


@attrs.frozen
class Source:
    """Whose line it is, in the order in which batches are grouped."""

    app_id: str
    fn_id: str
    container_id: str
    call_id: str


TakeLine = Callable[[Source, bytes, bool], None]
"""Gets (source, line without its end, is_stderr). Must neither block nor raise."""


@attrs.define
class _Partial:
    """The begin of a line. At ``due`` it is taken as a whole one."""

    source: Source
    data: bytes
    due: float


class LineCutter:
    """Cuts output into lines, which ``take`` gets.

    The begin of a line is kept for each stream of each container; its length says how many there
    are. There is no task that watches the time: who waits for lines calls `flush_due` at
    `next_due`.
    """

    def __init__(self, take: TakeLine) -> None:
        self._take = take
        self._partials: dict[tuple[str, bool], _Partial] = {}

    def __len__(self) -> int:
        return len(self._partials)

    @property
    def next_due(self) -> float:
        """On Trio's clock; infinite if nothing is to be expected."""
        return min((partial.due for partial in self._partials.values()), default=math.inf)

    def add(self, output: OutputPiece) -> bool:
        """Whether `next_due` may be nearer now."""
        if output.ends:
            return self._note_end(output)
        source = Source(output.app_id, output.fn_id, output.container_id, output.call_id)
        key = output.container_id, output.is_stderr
        partial = self._partials.get(key)
        if partial is not None and partial.source != source:
            self._flush(key)
            partial = None
        begun = b"" if partial is None else partial.data
        *lines, rest = (begun + output.data).split(b"\n")
        pieces = [piece for line in lines for piece in _cut(line)]
        if len(rest) > MAX_LINE:
            *full, rest = _cut(rest)
            pieces += full
        for piece in pieces:
            self._take(source, piece, output.is_stderr)
        if not rest:
            self._partials.pop(key, None)
            return False
        due = math.inf if output.running else trio.current_time() + LINGER
        self._partials[key] = _Partial(source, rest, due)
        return not output.running

    def flush(self) -> None:
        """All lines that were begun are complete as they are."""
        for key in tuple(self._partials):
            self._flush(key)

    def flush_due(self) -> None:
        """Those of which nothing more is to be expected."""
        now = trio.current_time()
        for key in [key for key, partial in self._partials.items() if partial.due <= now]:
            self._flush(key)

    def _note_end(self, output: OutputPiece) -> bool:
        """Nothing more is to be expected of the call, nothing comes of the container."""
        sooner = False
        for key in ((output.container_id, False), (output.container_id, True)):
            if output.ends == "container":
                self._flush(key)
            elif key in self._partials:
                self._partials[key].due = trio.current_time() + LINGER
                sooner = True
        return sooner

    def _flush(self, key: tuple[str, bool]) -> None:
        partial = self._partials.pop(key, None)
        if partial is not None:
            self._take(partial.source, partial.data, key[1])


def _cut(line: bytes) -> Iterator[bytes]:
    """``line`` in pieces of at most ``MAX_LINE`` bytes; an empty one is a piece too."""
    if not line:
        yield line
    for start in range(0, len(line), MAX_LINE):
        yield line[start : start + MAX_LINE]
