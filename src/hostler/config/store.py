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

    db_url: str = attrs.field(default="", repr=False, metadata=setting(TEXT, "FN_DB_URL"))
    """Database of full and API nodes ("" = an SQLite file ``data/fn.db`` in the working
    directory): ``sqlite3://path``, ``postgres://user:password@host/name``,
    ``mysql://user:password@tcp(host:3306)/name``."""

    ds_db_ping_max_retries: int = attrs.field(
        default=10, metadata=setting(number(), "FN_DS_DB_PING_MAX_RETRIES")
    )
    """Attempts (10) to reach the database at the start, one second apart; 0 means 1."""

    db_pool_size: int = attrs.field(default=10, metadata=setting(_POOL, "FN_DB_POOL_SIZE"))
    """Connections (10) to the database, and therefore operations at a time. Ours."""

    db_timeout: float = attrs.field(default=10.0, metadata=setting(SECONDS, "FN_DB_TIMEOUT"))
    """Seconds (10) that an operation may take, including its wait for a connection. Ours."""

    max_fn_memory: int = attrs.field(
        default=MAX_MEMORY, metadata=setting(_LIMIT, "FN_MAX_FN_MEMORY")
    )
    """Maximum MB (8192) that a function may ask for. In Fn, only code can set this limit and the
    next two."""

    max_fn_timeout: int = attrs.field(
        default=MAX_TIMEOUT, metadata=setting(_LIMIT, "FN_MAX_FN_TIMEOUT")
    )
    """Maximum seconds (300) that a function may ask to run."""

    max_fn_idle_timeout: int = attrs.field(
        default=MAX_IDLE_TIMEOUT, metadata=setting(_LIMIT, "FN_MAX_FN_IDLE_TIMEOUT")
    )
    """Maximum seconds (3600) that a function may ask its hot containers to idle."""

    @property
    def limits(self) -> Limits:
        """The last three together."""
        return Limits(
            memory=self.max_fn_memory,
            timeout=self.max_fn_timeout,
            idle_timeout=self.max_fn_idle_timeout,
        )
