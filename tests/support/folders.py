"""Folders for tests and benchmarks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short_folder(*, strict: bool = True) -> Iterator[Path]:
    """A folder with a path that leaves room for the sockets in it (108 bytes in all). If not
    ``strict``, something in it may resist its removal."""
    path = Path(tempfile.mkdtemp(prefix="hs-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=not strict)
