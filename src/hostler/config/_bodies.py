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
    """Bytes (268 435 456) of memory for the bodies of all calls together. Further bodies are kept
    in files. Bodies of up to 64 KiB that arrive at once are counted, but stay in memory."""

    body_spill_size: int = attrs.field(
        default=1024 * 1024, metadata=setting(number(), "FN_BODY_SPILL_SIZE")
    )
    """Bytes (1 048 576) of one body that are kept in memory. A larger body goes to a temporary
    file."""

    body_disk: int = attrs.field(
        default=1024 * 1024 * 1024, metadata=setting(number(), "FN_BODY_DISK")
    )
    """Bytes (1 073 741 824) of files for the bodies of all calls together; 0 = no files. If there
    is no more room, or the disk is full or takes more than 5 s, a detached call gets a 503 at once.
    Another call gets a 503 instead of another attempt if a runner refuses it after taking some of
    its body. If the disk can't be written for another reason, the answer is a 500."""

    body_dir: str = attrs.field(default="", metadata=setting(ABSOLUTE_PATH, "FN_BODY_DIR"))
    """Directory of these files ("" = ``TMPDIR``, or else ``/tmp``), on a local disk. The files have
    no names. They disappear with their calls or with the process."""
