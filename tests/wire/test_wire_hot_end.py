"""The end of a call on a hot container, which is written in one go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hostler.frames import Finished, LoadHint
from hostler.wire import _codec as codec
from hostler.wire._hot_end import hot_fields

DATE = "2025-09-26T12:57:15.123Z"
HOT = Finished(
    success=True,
    details="01HOT",
    created_at=DATE,
    started_at=DATE,
    completed_at=DATE,
    execution_ns=1_234_567,
    image="image:1",
)


@pytest.mark.parametrize(
    ("changes", "hot"),
    [
        ({}, True),
        ({"scheduler_ns": 2**62, "load": LoadHint(active=3)}, True),
        ({"image": "x" * 300}, True),
        ({"started_at": DATE[:-1]}, False),
        ({"started_at": DATE[:-1] + "é"}, False),
        ({"started_at": DATE[:-1], "completed_at": DATE + "Z"}, False),
        ({"completed_at": ""}, False),
        ({"execution_ns": 0}, False),
        ({"scheduler_ns": -1}, False),
        ({"init_start_ns": 1}, False),
        ({"success": False}, False),
        ({"error_text": "no"}, False),
    ],
)
def test_the_end_of_a_hot_call_is_encoded_as_betterproto_does(
    changes: dict[str, Any], hot: bool
) -> None:
    frame = msgspec.structs.replace(HOT, **changes)
    assert (hot_fields(frame) is not None) == hot
    assert codec.encode_runner(frame) == codec._build_finished(frame)
