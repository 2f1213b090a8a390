"""Settings of the datastore."""

from __future__ import annotations

import attrs

from ..rules import MAX_IDLE_TIMEOUT, MAX_MEMORY, MAX_TIMEOUT, Limits
from .base import SECONDS, TEXT, EnvConfig, number, setting

_INT32_MAX = 2**31 - 1
_POOL = number(low=1, high=1000)
_LIMIT = number(low=1, high=_INT32_MAX)


@attrs.frozen(kw_only=True)
class StoreConfig(EnvConfig):
    """The database of a node, and what functions may ask for."""

    db_url: str = setting(TEXT, "", secret=True)
    """Database of full and API nodes (none = an SQLite file ``data/fn.db`` in the working
    directory): ``sqlite3://path``, ``postgres://user:password@host/name``,
    ``mysql://user:password@tcp(host:3306)/name``."""

    ds_db_ping_max_retries: int = setting(number(), 10)
    """Attempts to reach the database at the start, one second apart; 0 means 1."""

    db_pool_size: int = setting(_POOL, 10)
    """Connections to the database, and therefore operations at a time. Ours."""

    db_timeout: float = setting(SECONDS, 10.0)
    """Seconds that an operation may take, including its wait for a connection. Ours."""

    max_fn_memory: int = setting(_LIMIT, MAX_MEMORY)
    """Maximum MB that a function may ask for. In Fn, only code can set this limit and the next
    two."""

    max_fn_timeout: int = setting(_LIMIT, MAX_TIMEOUT)
    """Maximum seconds that a function may ask to run."""

    max_fn_idle_timeout: int = setting(_LIMIT, MAX_IDLE_TIMEOUT)
    """Maximum seconds that a function may ask its hot containers to idle."""

    @property
    def limits(self) -> Limits:
        """The last three together."""
        return Limits(
            memory=self.max_fn_memory,
            timeout=self.max_fn_timeout,
            idle_timeout=self.max_fn_idle_timeout,
        )
