"""Numbers of the command line, with messages for people."""

from __future__ import annotations

import math
from typing import Any

import click


class Count(click.IntRange):
    """From 0 to ``most``."""

    name = "integer"

    def __init__(self, most: int | None = None) -> None:
        super().__init__(min=0, max=most)


class Seconds(click.FloatRange):
    """From 0. "nan" and "inf" are none."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a valid number.", param, ctx)
        return seconds
