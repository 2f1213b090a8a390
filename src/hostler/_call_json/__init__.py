"""A `Call` as a JSON document: ``TryCall.models_call_json``, the part of the wire that is not
protobuf."""

from __future__ import annotations

from ._cpus import format_cpus, parse_cpus
from ._document import decode_call, encode_call
from ._raw import compact

__all__ = ["compact", "decode_call", "encode_call", "format_cpus", "parse_cpus"]
