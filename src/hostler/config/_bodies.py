"""Settings of what a node keeps of request bodies."""

from __future__ import annotations

import attrs

from ._base import EnvConfig, setting
from ._kinds import ABSOLUTE_PATH, number


@attrs.frozen(kw_only=True)
class BodyConfig(EnvConfig):
    """What the bodies of all calls may take, so that a call can be sent to another runner, and
    a detached one outlives its request. All ours: Fn keeps all bodies in memory, without limit.
    """

    body_memory: int = attrs.field(
        default=256 * 1024 * 1024, metadata=setting(number(), "FN_BODY_MEMORY")
    )
    """Bytes (268 435 456) of memory for the bodies of all calls together. With more, bodies are
    kept in files. Bodies up to 64 KiB that came at once are counted, but stay in memory."""

    body_spill_size: int = attrs.field(
        default=1024 * 1024, metadata=setting(number(), "FN_BODY_SPILL_SIZE")
    )
    """Bytes (1 048 576) of one body that are kept in memory. With more, what there is of it goes
    to a temporary file."""

    body_disk: int = attrs.field(
        default=1024 * 1024 * 1024, metadata=setting(number(), "FN_BODY_DISK")
    )
    """Bytes (1 073 741 824) of files for the bodies of all calls together, 0 = no files. With
    more, or on a disk that is full or takes more than 5 s, a call that a runner refuses after it
    has taken some of its body gets a 503 instead of another attempt, and a detached call gets a
    503 at once; on one that can't be written for another reason, a 500."""

    body_dir: str = attrs.field(default="", metadata=setting(ABSOLUTE_PATH, "FN_BODY_DIR"))
    """Directory of these files ("" = ``TMPDIR``, or else ``/tmp``), on a local disk. They have no
    names, and are gone with their calls or the process."""
