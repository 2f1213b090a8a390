"""Settings of the process driver."""

from __future__ import annotations

import os

import attrs


@attrs.frozen(kw_only=True)
class ProcessConfig:
    """How functions run as local processes."""

    working_directory: str = attrs.Factory(os.getcwd)
    """Of all functions; relative programs are looked up from here."""
    inherited_env: tuple[str, ...] = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
    """Variables that a function gets from hostler's own environment, unless its configuration
    sets them. Nothing else of that environment, which may hold secrets, reaches a function."""
    allow_commands: bool = True
    """Whether an image that is not among the named ones is taken as a command line. Whoever may
    define a function can then run any program as hostler's user."""
