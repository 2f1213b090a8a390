"""A check of our own for schemathesis: a request that is valid by its schema is not refused, but
for what no schema can say."""

from __future__ import annotations

from typing import Any

import schemathesis

BEYOND_SCHEMAS = (
    "Invalid cursor",  # base64 of UTF-8
    "Invalid Fn ID - not owned by specified app",
    "Invalid annotation value length, ",  # as compact JSON
    "Invalid annotation change, ",  # with those that are there
    "path and query must not have NUL characters",
)


@schemathesis.check
def valid_requests_are_taken(_context: Any, response: Any, case: Any) -> None:
    if response.status_code != 400 or not case.meta.generation.mode.is_positive:
        return
    message = response.json()["message"]
    assert message.startswith(BEYOND_SCHEMAS), f"valid, but refused: {message}"
