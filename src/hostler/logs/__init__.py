"""A process's own log: where its lines go, how they look, and that nothing ever waits for them."""

from __future__ import annotations

from ._open import open_logs, open_stream
from ._writer import LogWriter

__all__ = ["LogWriter", "open_logs", "open_stream"]
