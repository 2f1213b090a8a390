"""Settings of the runner's agent and its Docker driver."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from hostler.errors import ConfigError

from ._base import EnvConfig, setting
from ._kinds import (
    ABSOLUTE_PATH,
    FLAG,
    FLAG_OR_AUTO,
    MILLISECONDS,
    NON_EMPTY,
    OPTIONAL_FLAG,
    POSITIVE_MILLISECONDS,
    SECONDS,
    TEXT,
    WORDS,
    number,
)

_SIZE = number()
_INT64_SIZE = number(high=2**63 - 1)
_ULIMIT = number(blank_is_default=False, optional=True)


@attrs.frozen(kw_only=True)
class AgentConfig(EnvConfig):
    """How an agent runs functions. Times are milliseconds, ``math.inf`` = never.

    Names, defaults and parsing are those of Fn's agent, except where a field says "ours".
    """

    # --- hot containers ---

    freeze_idle_msecs: float = attrs.field(
        default=50.0, metadata=setting(MILLISECONDS, "FN_FREEZE_IDLE_MSECS")
    )
    """Milliseconds (50) that a container idles at least before it is paused; 0 = pause at once.
    Over 0 the time adapts to what pausing costs and to how often the function is called."""

    hot_poll_msecs: float = attrs.field(
        default=200.0, metadata=setting(POSITIVE_MILLISECONDS, "FN_HOT_POLL_MSECS")
    )
    """Milliseconds (200) between two looks of Fn's waiting calls. No effect: nothing polls here."""

    hot_launcher_timeout_msecs: float = attrs.field(
        default=3_600_000.0, metadata=setting(MILLISECONDS, "FN_HOT_LAUNCHER_TIMEOUT_MSECS")
    )
    """Milliseconds (3 600 000) that Fn keeps an idle slot queue. No effect: an empty queue is
    dropped at once, since it costs nothing to make."""

    keep_alive: str = attrs.field(default="fixed", metadata=setting(NON_EMPTY, "FN_KEEP_ALIVE"))
    """How long idle containers stay (fixed): `fixed` = for their function's idle timeout,
    `predictive` = where the same memory saves most, and they may come ahead of calls, or
    `module:attribute` of a policy of your own. Ours."""

    keep_alive_percent: int = attrs.field(
        default=100, metadata=setting(number(1, 100_000), "FN_KEEP_ALIVE_PERCENT")
    )
    """Percent (100) of the memory that the functions' idle timeouts would keep idle on average,
    which the policy `predictive` may use. Ours."""

    slot_wait_msecs: float = attrs.field(
        default=math.inf, metadata=setting(MILLISECONDS, "FN_SLOT_WAIT_MSECS")
    )
    """Milliseconds (no limit) that a call may wait for a container; then it is refused. Ours."""

    max_wait: float = attrs.field(default=10.0, metadata=setting(SECONDS, "FN_MAX_WAIT"))
    """Seconds (10) that a call that no load balancer has sent may have to wait for a container, by
    what is known of its line, if its client does not say how long it waits
    (``Fn-Request-Timeout``); one that would wait longer gets a 503 at once. It is less while
    clients of the function leave sooner. Ours."""

    reservation_msecs: float = attrs.field(
        default=2_000.0, metadata=setting(MILLISECONDS, "FN_RESERVATION_MSECS")
    )
    """Milliseconds (2 000) that a container is held for a load balancer that has reserved it and
    does not say that the call shall run; 0 = no reservations are taken. Ours."""

    hot_pull_timeout_msecs: float = attrs.field(
        default=600_000.0, metadata=setting(MILLISECONDS, "FN_HOT_PULL_TIMEOUT_MSECS")
    )
    """Milliseconds (600 000) that the pull of an image may take."""

    hot_start_timeout_msecs: float = attrs.field(
        default=5_000.0, metadata=setting(MILLISECONDS, "FN_HOT_START_TIMEOUT_MSECS")
    )
    """Milliseconds (5 000) from the start of a container until its socket is ready."""

    launch_concurrency: int = attrs.field(
        default=8, metadata=setting(number(low=1), "FN_LAUNCH_CONCURRENCY")
    )
    """Containers (8) that are created and started at the same time. Ours."""

    drain_grace_msecs: float = attrs.field(
        default=30_000.0, metadata=setting(MILLISECONDS, "FN_DRAIN_GRACE_MSECS")
    )
    """Milliseconds (30 000) that running calls get to finish when the agent closes. Ours: Fn
    waits without limit."""

    enable_fdk_debug_info: bool = attrs.field(default=False, metadata=setting(FLAG))
    """Whether (no) a function finds the id of the call that launched its container in
    ``FN_SPAWN_CALL_ID``. Set in code only."""

    # --- responses and logs ---

    max_response_size: int = attrs.field(default=0, metadata=setting(_SIZE, "FN_MAX_RESPONSE_SIZE"))
    """Bytes of a response body, 0 (default) = no limit."""

    max_hdr_response_size: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_MAX_HDR_RESPONSE_SIZE")
    )
    """Bytes of a response head, 0 (default) = 10 MiB."""

    max_log_size_bytes: int = attrs.field(
        default=1_048_576, metadata=setting(_INT64_SIZE, "FN_MAX_LOG_SIZE_BYTES")
    )
    """Bytes (1 048 576) of a function's output that are logged, or kept, for each call; then a
    line says that there was more. 0 = nothing. Log streams have a limit of their own."""

    disable_debug_user_logs: bool = attrs.field(
        default=False, metadata=setting(FLAG, "FN_DISABLE_DEBUG_USER_LOGS")
    )
    """Whether (no) the lines that functions print are left out of the debug log of ``hostler
    serve`` and ``runner``. At other log levels they are not captured for it."""

    # --- resources ---

    max_total_cpu_mcpus: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_MAX_TOTAL_CPU_MCPUS")
    )
    """Milli-CPUs for all containers together, 0 (default) = what the machine has."""

    max_total_memory_bytes: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_MAX_TOTAL_MEMORY_BYTES")
    )
    """Bytes of memory for all containers together, 0 (default) = what the machine has."""

    enable_nb_resource_tracker: bool | Literal["auto"] = attrs.field(
        default=False, metadata=setting(FLAG_OR_AUTO, "FN_ENABLE_NB_RESOURCE_TRACKER")
    )
    """Whether (no; ``hostler runner``: auto) a call that finds no room is refused at once (NACK),
    so that an LB can try another runner; otherwise it waits. ``auto`` = yes for calls of hostler's
    load balancers, which have them wait in order, and no, as is Fn's default, for those of others,
    which would ask again every 10 ms."""

    # --- limits of one container ---

    max_fs_size_mb: int = attrs.field(default=0, metadata=setting(_SIZE, "FN_MAX_FS_SIZE_MB"))
    """MB of a container's own storage, 0 (default) = no limit."""

    max_pids: int = attrs.field(default=50, metadata=setting(_INT64_SIZE, "FN_MAX_PIDS"))
    """Processes (50) in a container, 0 = no limit."""

    max_open_files: int | None = attrs.field(
        default=350, metadata=setting(_ULIMIT, "FN_MAX_OPEN_FILES")
    )
    """Open files (350) of a process (ulimit ``nofile``); ``None``, in code only, = the engine's
    own limit, here and for the other three."""

    max_locked_memory: int | None = attrs.field(
        default=65_536, metadata=setting(_ULIMIT, "FN_MAX_LOCKED_MEMORY")
    )
    """Bytes (65 536) of locked memory (ulimit ``memlock``)."""

    max_pending_signals: int | None = attrs.field(
        default=5_000, metadata=setting(_ULIMIT, "FN_MAX_PENDING_SIGNALS")
    )
    """Queued signals (5 000; ulimit ``sigpending``)."""

    max_message_queue: int | None = attrs.field(
        default=819_200, metadata=setting(_ULIMIT, "FN_MAX_MESSAGE_QUEUE")
    )
    """Bytes (819 200) of POSIX message queues (ulimit ``msgqueue``)."""

    max_tmpfs_inodes: int = attrs.field(default=0, metadata=setting(_SIZE, "FN_MAX_TMPFS_INODES"))
    """Inodes of a container's ``/tmp``, also of one without a size; 0 (default) = no limit."""

    disable_readonly_rootfs: bool = attrs.field(
        default=False, metadata=setting(FLAG, "FN_DISABLE_READONLY_ROOTFS")
    )
    """Whether (no) functions may write to their image's file system."""

    disable_unprivileged_containers: bool = attrs.field(
        default=False, metadata=setting(FLAG, "FN_DISABLE_UNPRIVILEGED_CONTAINERS")
    )
    """Whether (no) containers run as the image's user and with its capabilities."""

    # --- the socket directory ---

    iofs_path: str = attrs.field(default="", metadata=setting(ABSOLUTE_PATH, "FN_IOFS_PATH"))
    """Directory for the containers' socket directories, "" (default) = the system's temporary
    directory."""

    iofs_docker_path: str = attrs.field(
        default="", metadata=setting(ABSOLUTE_PATH, "FN_IOFS_DOCKER_PATH")
    )
    """The same directory as the engine's host sees it, "" (default) = at the same path."""

    iofs_tmpfs: bool | None = attrs.field(
        default=None, metadata=setting(OPTIONAL_FLAG, "FN_IOFS_TMPFS")
    )
    """Whether each socket directory is a small tmpfs of its own, which bounds what a function can
    write there (none = where that is possible). Fn's default is no."""

    iofs_opts: str = attrs.field(default="", metadata=setting(TEXT, "FN_IOFS_OPTS"))
    """Mount options of that tmpfs, beside ``noexec,nosuid,nodev`` and after
    ``size=64k,nr_inodes=32`` (none)."""

    # --- Docker ---

    container_label_tag: str = attrs.field(
        default="", metadata=setting(TEXT, "FN_CONTAINER_LABEL_TAG")
    )
    """Label of this agent's containers (none); with one, containers that an earlier agent with
    the same label left behind are removed at the start."""

    docker_networks: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(WORDS, "FN_DOCKER_NETWORKS")
    )
    """Networks of which each container joins the one with the fewest (none = the default one)."""

    docker_load_file: str = attrs.field(default="", metadata=setting(TEXT, "FN_DOCKER_LOAD_FILE"))
    """Archive of images to load at the start (none)."""

    docker_auth: str = attrs.field(default="", repr=False, metadata=setting(TEXT, "FN_DOCKER_AUTH"))
    """Registry credentials as JSON (none), see the page on images."""

    min_docker_version: str = attrs.field(default="17.10.0-ce", metadata=setting(NON_EMPTY))
    """Oldest engine (17.10.0-ce) that is accepted. Set in code only."""

    image_enable_volume: bool = attrs.field(
        default=False, metadata=setting(FLAG, "FN_IMAGE_ENABLE_VOLUME")
    )
    """Whether (no) images may declare volumes."""

    image_pull_retries: int = attrs.field(
        default=5, metadata=setting(number(high=1_000), "FN_IMAGE_PULL_RETRIES")
    )
    """How often (5) a pull is tried again after a trouble that a while may mend, 0 = never. Ours:
    Fn's default is never."""

    image_pull_retry_interval_msecs: int = attrs.field(
        default=500, metadata=setting(number(1, 3_600_000), "FN_IMAGE_PULL_RETRY_INTERVAL_MSECS")
    )
    """Milliseconds (500) that the wait before the first retry is below; the bound for the others
    is 3, 7, 15, ... times that. Ours."""

    image_pull_retry_max_delay_msecs: int = attrs.field(
        default=10_000,
        metadata=setting(number(1, 3_600_000), "FN_IMAGE_PULL_RETRY_MAX_DELAY_MSECS"),
    )
    """Milliseconds (10 000) that no wait before a retry is longer than. Ours."""

    image_clean_max_size: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_IMAGE_CLEAN_MAX_SIZE")
    )
    """Bytes of images from which on unused ones are removed, 0 (default) = never. See the page on
    images."""

    image_clean_exempt_tags: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(WORDS, "FN_IMAGE_CLEAN_EXEMPT_TAGS")
    )
    """Images (none) that are never removed. A name without a tag means ``latest``."""

    # --- the pool of network name spaces ---

    experimental_prefork_pool_size: int | None = attrs.field(
        default=None,
        metadata=setting(number(high=10_000, optional=True), "FN_EXPERIMENTAL_PREFORK_POOL_SIZE"),
    )
    """Containers kept for their network name space, 0 = no pool (none = as ``prepared_networks``
    says if the engine's runtime is one that can share a name space, else 0). Fn's default is 0."""

    prepared_networks: int = attrs.field(default=16, metadata=setting(number(high=10_000)))
    """Containers (16) of the pool for each of the engine's CPUs, if
    ``experimental_prefork_pool_size`` says nothing. Each costs the machine a shim process of the
    engine, 4 MB. Ours."""

    prepared_networks_limit: int = attrs.field(default=32, metadata=setting(number(high=10_000)))
    """Containers (32) that these are at most while no function uses any: they stay in sight of
    whoever lists containers. What is used is replaced, up to twice as many in all. Ours."""

    experimental_prefork_image: str = attrs.field(
        default="", metadata=setting(TEXT, "FN_EXPERIMENTAL_PREFORK_IMAGE")
    )
    """Their image (none = one that the driver makes itself). Fn's default is busybox."""

    experimental_prefork_cmd: str = attrs.field(
        default="tail -f /dev/null", metadata=setting(TEXT, "FN_EXPERIMENTAL_PREFORK_CMD")
    )
    """Their command (``tail -f /dev/null``), if an image is named."""

    experimental_prefork_use_once: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_EXPERIMENTAL_PREFORK_USE_ONCE")
    )
    """Not 0 = such a container is restarted after each use (0)."""

    experimental_prefork_networks: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(WORDS, "FN_EXPERIMENTAL_PREFORK_NETWORKS")
    )
    """Networks that they join (none = those of ``docker_networks``, and without them the default
    one, which Fn's join)."""

    def _check_together(self) -> None:
        if self.iofs_opts and self.iofs_tmpfs is False:
            raise ConfigError(
                f"FN_IOFS_OPTS={self.iofs_opts!r} are mount options of a tmpfs: "
                "don't set FN_IOFS_TMPFS=false"
            )
