"""Python's cyclic garbage collector, set up for a process that serves calls."""

from __future__ import annotations
