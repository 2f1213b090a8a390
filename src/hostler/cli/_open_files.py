"""How many files, and so connections, a node may have open."""

from __future__ import annotations

import resource

import structlog

log = structlog.get_logger(__name__)

ENOUGH = 1_048_576
"""Some systems have no hard limit at all, and what functions inherit should stay a number that
programs can loop over."""


def raise_open_files() -> int:
    """Make the process's soft limit the hard one, as Go's runtime does, and return it.

    The usual soft limit, 1024, is one for programs that use ``select``, not for servers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:  # containers may forbid it
            log.warning("cannot raise the limit of open files", limit=soft, reason=str(error))
        else:
            return wanted
    return soft
