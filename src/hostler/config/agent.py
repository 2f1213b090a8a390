"""Settings of a runner: agent, Docker driver, runner server."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from ..errors import ConfigError
from .base import (
    ABSOLUTE_PATH,
    COMMA_LIST,
    FLAG,
    FLAG_OR_AUTO,
    MILLISECONDS,
    NON_EMPTY,
    OPTIONAL_FLAG,
    POSITIVE_MILLISECONDS,
    SECONDS,
    TEXT,
    WORDS,
    EnvConfig,
    number,
    setting,
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
    """Minimum milliseconds (50) that a container idles before it is paused; 0 = pause at once.
    Above 0, the time adapts to the cost of pausing and to how often the function is called."""

    hot_poll_msecs: float = attrs.field(
        default=200.0, metadata=setting(POSITIVE_MILLISECONDS, "FN_HOT_POLL_MSECS")
    )
    """Milliseconds (200) between two polls of a waiting call in Fn. No effect: hostler does not
    poll."""

    hot_launcher_timeout_msecs: float = attrs.field(
        default=3_600_000.0, metadata=setting(MILLISECONDS, "FN_HOT_LAUNCHER_TIMEOUT_MSECS")
    )
    """Milliseconds (3 600 000) that Fn keeps an idle slot queue. No effect: hostler drops an empty
    queue at once, because making a queue costs nothing."""

    keep_alive: str = attrs.field(default="fixed", metadata=setting(NON_EMPTY, "FN_KEEP_ALIVE"))
    """How long idle containers stay (fixed). ``fixed`` = for their function's idle timeout.
    ``predictive`` = where the same memory saves most; containers may then start ahead of calls.
    ``module:attribute`` = a policy of your own. Ours."""

    keep_alive_percent: int = attrs.field(
        default=100, metadata=setting(number(1, 100_000), "FN_KEEP_ALIVE_PERCENT")
    )
    """Memory that the policy ``predictive`` may use, as a percentage (100) of the memory that the
    functions' idle timeouts would keep idle on average. Ours."""

    slot_wait_msecs: float = attrs.field(
        default=math.inf, metadata=setting(MILLISECONDS, "FN_SLOT_WAIT_MSECS")
    )
    """Milliseconds (no limit) that a call may wait for a container before it is refused. Ours."""

    max_wait: float = attrs.field(default=10.0, metadata=setting(SECONDS, "FN_MAX_WAIT"))
    """Maximum expected wait, in seconds (10), of a call for a container. Concerns calls that did
    not come from a load balancer. A call with a longer expected wait gets a 503 at once. A client
    that says how long it waits (``Fn-Request-Timeout``) sets another limit. The limit is lower
    while clients of the function leave sooner. Ours."""

    reservation_msecs: float = attrs.field(
        default=2_000.0, metadata=setting(MILLISECONDS, "FN_RESERVATION_MSECS")
    )
    """Milliseconds (2 000) that a reserved container is held until its load balancer says that the
    call shall run; 0 = no reservations are taken. Ours."""

    hot_pull_timeout_msecs: float = attrs.field(
        default=600_000.0, metadata=setting(MILLISECONDS, "FN_HOT_PULL_TIMEOUT_MSECS")
    )
    """Milliseconds (600 000) that the pull of an image may take."""

    hot_start_timeout_msecs: float = attrs.field(
        default=5_000.0, metadata=setting(MILLISECONDS, "FN_HOT_START_TIMEOUT_MSECS")
    )
    """Milliseconds (5 000) from the start of a container in which its socket must be ready."""

    launch_concurrency: int = attrs.field(
        default=8, metadata=setting(number(low=1), "FN_LAUNCH_CONCURRENCY")
    )
    """Maximum number of containers (8) that are created and started at the same time. Ours."""

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
    """Maximum bytes of a response body; 0 (default) = no limit."""

    max_hdr_response_size: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_MAX_HDR_RESPONSE_SIZE")
    )
    """Maximum bytes of a response head; 0 (default) = 10 MiB."""

    max_log_size_bytes: int = attrs.field(
        default=1_048_576, metadata=setting(_INT64_SIZE, "FN_MAX_LOG_SIZE_BYTES")
    )
    """Maximum bytes (1 048 576) of a function's output that are logged, or kept, for each call; 0 =
    nothing. If there is more, a last line says so. Log streams have a limit of their own."""

    disable_debug_user_logs: bool = attrs.field(
        default=False, metadata=setting(FLAG, "FN_DISABLE_DEBUG_USER_LOGS")
    )
    """Whether (no) the debug log of ``hostler serve`` and ``runner`` leaves out the lines that
    functions print. At other log levels the lines are not captured for the log."""

    # --- resources ---

    max_total_cpu_mcpus: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_MAX_TOTAL_CPU_MCPUS")
    )
    """Milli-CPUs for all containers together; 0 (default) = all that the machine has."""

    max_total_memory_bytes: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_MAX_TOTAL_MEMORY_BYTES")
    )
    """Bytes of memory for all containers together; 0 (default) = all that the machine has."""

    enable_nb_resource_tracker: bool | Literal["auto"] = attrs.field(
        default=False, metadata=setting(FLAG_OR_AUTO, "FN_ENABLE_NB_RESOURCE_TRACKER")
    )
    """Whether (no; ``hostler runner``: auto) a call that finds no room is refused at once (NACK),
    so that an LB can try another runner. Otherwise the call waits. ``auto`` = yes for calls of
    hostler's load balancers, where refused calls wait in order, and no, as is Fn's default, for
    calls of other load balancers, which would ask again every 10 ms."""

    # --- limits of one container ---

    max_fs_size_mb: int = attrs.field(default=0, metadata=setting(_SIZE, "FN_MAX_FS_SIZE_MB"))
    """Maximum MB of a container's own storage; 0 (default) = no limit."""

    max_pids: int = attrs.field(default=50, metadata=setting(_INT64_SIZE, "FN_MAX_PIDS"))
    """Maximum number of processes (50) in a container; 0 = no limit."""

    max_open_files: int | None = attrs.field(
        default=350, metadata=setting(_ULIMIT, "FN_MAX_OPEN_FILES")
    )
    """Maximum number of open files (350) of a process (ulimit ``nofile``). ``None``, in code only,
    = the engine's own limit, for this setting and the next three."""

    max_locked_memory: int | None = attrs.field(
        default=65_536, metadata=setting(_ULIMIT, "FN_MAX_LOCKED_MEMORY")
    )
    """Maximum bytes (65 536) of locked memory (ulimit ``memlock``)."""

    max_pending_signals: int | None = attrs.field(
        default=5_000, metadata=setting(_ULIMIT, "FN_MAX_PENDING_SIGNALS")
    )
    """Maximum number of queued signals (5 000; ulimit ``sigpending``)."""

    max_message_queue: int | None = attrs.field(
        default=819_200, metadata=setting(_ULIMIT, "FN_MAX_MESSAGE_QUEUE")
    )
    """Maximum bytes (819 200) of POSIX message queues (ulimit ``msgqueue``)."""

    max_tmpfs_inodes: int = attrs.field(default=0, metadata=setting(_SIZE, "FN_MAX_TMPFS_INODES"))
    """Maximum number of inodes of a container's ``/tmp``, even if the function sets no size for it;
    0 (default) = no limit."""

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
    """Directory for the containers' socket directories; "" (default) = the system's temporary
    directory."""

    iofs_docker_path: str = attrs.field(
        default="", metadata=setting(ABSOLUTE_PATH, "FN_IOFS_DOCKER_PATH")
    )
    """The same directory as the engine's host sees it; "" (default) = at the same path."""

    iofs_tmpfs: bool | None = attrs.field(
        default=None, metadata=setting(OPTIONAL_FLAG, "FN_IOFS_TMPFS")
    )
    """Whether each socket directory is a small tmpfs of its own, which limits what a function can
    write there (none = yes, where that is possible). Fn's default is no."""

    iofs_opts: str = attrs.field(default="", metadata=setting(TEXT, "FN_IOFS_OPTS"))
    """Mount options (none) of that tmpfs, beside ``noexec,nosuid,nodev`` and after
    ``size=64k,nr_inodes=32``."""

    # --- Docker ---

    container_label_tag: str = attrs.field(
        default="", metadata=setting(TEXT, "FN_CONTAINER_LABEL_TAG")
    )
    """Label (none) of this agent's containers. An agent with a label removes at its start the
    containers that an earlier agent with the same label left behind."""

    docker_networks: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(WORDS, "FN_DOCKER_NETWORKS")
    )
    """Networks (none = the default network). Each container joins the network with the fewest
    containers."""

    docker_load_file: str = attrs.field(default="", metadata=setting(TEXT, "FN_DOCKER_LOAD_FILE"))
    """Archive of images to load at the start (none)."""

    docker_auth: str = attrs.field(default="", repr=False, metadata=setting(TEXT, "FN_DOCKER_AUTH"))
    """Registry credentials as JSON (none); see the page on images."""

    min_docker_version: str = attrs.field(default="17.10.0-ce", metadata=setting(NON_EMPTY))
    """Oldest engine (17.10.0-ce) that is accepted. Set in code only."""

    image_enable_volume: bool = attrs.field(
        default=False, metadata=setting(FLAG, "FN_IMAGE_ENABLE_VOLUME")
    )
    """Whether (no) images may declare volumes."""

    image_pull_retries: int = attrs.field(
        default=5, metadata=setting(number(high=1_000), "FN_IMAGE_PULL_RETRIES")
    )
    """Number of times (5) that a pull is tried again after a problem that may pass; 0 = never.
    Ours: Fn's default is never."""

    image_pull_retry_interval_msecs: int = attrs.field(
        default=500, metadata=setting(number(1, 3_600_000), "FN_IMAGE_PULL_RETRY_INTERVAL_MSECS")
    )
    """Upper bound, in milliseconds (500), of the random wait before the first retry. The bounds of
    the later waits are 3, 7, 15, ... times that. Ours."""

    image_pull_retry_max_delay_msecs: int = attrs.field(
        default=10_000,
        metadata=setting(number(1, 3_600_000), "FN_IMAGE_PULL_RETRY_MAX_DELAY_MSECS"),
    )
    """Upper bound, in milliseconds (10 000), of the wait before any retry. Ours."""

    image_clean_max_size: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_IMAGE_CLEAN_MAX_SIZE")
    )
    """Total bytes of images from which on unused images are removed; 0 (default) = never. See the
    page on images."""

    image_clean_exempt_tags: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(WORDS, "FN_IMAGE_CLEAN_EXEMPT_TAGS")
    )
    """Images (none) that are never removed. A name without a tag means ``latest``."""

    # --- the pool of network name spaces ---

    experimental_prefork_pool_size: int | None = attrs.field(
        default=None,
        metadata=setting(number(high=10_000, optional=True), "FN_EXPERIMENTAL_PREFORK_POOL_SIZE"),
    )
    """Number of containers kept for their network name space; 0 = no pool (none = as many as
    ``prepared_networks`` says if the engine's runtime can share a name space, else 0). Fn's default
    is 0."""

    prepared_networks: int = attrs.field(default=16, metadata=setting(number(high=10_000)))
    """Number of containers (16) in the pool for each of the engine's CPUs, if
    ``experimental_prefork_pool_size`` is not set. Each container costs the machine a shim process
    of the engine, 4 MB. Ours."""

    prepared_networks_limit: int = attrs.field(default=32, metadata=setting(number(high=10_000)))
    """Maximum number of these containers (32) while no function uses any, because everybody who
    lists containers sees them. Used containers are replaced, up to twice as many in all. Ours."""

    experimental_prefork_image: str = attrs.field(
        default="", metadata=setting(TEXT, "FN_EXPERIMENTAL_PREFORK_IMAGE")
    )
    """Image of these containers (none = one that the driver makes itself). Fn's default is
    busybox."""

    experimental_prefork_cmd: str = attrs.field(
        default="tail -f /dev/null", metadata=setting(TEXT, "FN_EXPERIMENTAL_PREFORK_CMD")
    )
    """Command of these containers (``tail -f /dev/null``), if an image is set."""

    experimental_prefork_use_once: int = attrs.field(
        default=0, metadata=setting(_SIZE, "FN_EXPERIMENTAL_PREFORK_USE_ONCE")
    )
    """Whether such a container is restarted after each use; 0 (default) = no, any other number =
    yes."""

    experimental_prefork_networks: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(WORDS, "FN_EXPERIMENTAL_PREFORK_NETWORKS")
    )
    """Networks that these containers join (none = the networks of ``docker_networks``, or else the
    default network, which Fn's containers join)."""

    def _check_together(self) -> None:
        if self.iofs_opts and self.iofs_tmpfs is False:
            raise ConfigError(
                f"FN_IOFS_OPTS={self.iofs_opts!r} are mount options of a tmpfs: "
                "don't set FN_IOFS_TMPFS=false"
            )


@attrs.frozen(kw_only=True)
class RunnerConfig(EnvConfig):
    """What a runner offers load balancers, and how it finds out that one is gone. Times are
    seconds. The variables are ours."""

    multiplex_calls: int = attrs.field(
        default=512, metadata=setting(number(high=4096), "FN_MULTIPLEX_CALLS")
    )
    """Maximum number of calls (512) that a load balancer may have at once on a stream that they
    share; 0 = such streams are not offered. A load balancer has one such stream for each
    connection."""

    runner_keepalive_interval: float = attrs.field(
        default=60.0, metadata=setting(SECONDS, "FN_RUNNER_KEEPALIVE_INTERVAL")
    )
    """Seconds (60) of silence on a connection after which a ping asks whether the load balancer's
    process still lives. Clients accept any number of pings; only servers count them."""

    runner_keepalive_timeout: float = attrs.field(
        default=20.0, metadata=setting(SECONDS, "FN_RUNNER_KEEPALIVE_TIMEOUT")
    )
    """Seconds (20) in which the load balancer must answer that ping. Otherwise the runner gives the
    connection up and cancels its calls, except acknowledged detached calls."""

    runner_vanished_timeout: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_RUNNER_VANISHED_TIMEOUT")
    )
    """Seconds (30) after which the runner notices that a host has silently vanished from the
    network. The kernel probes in whole seconds: at least 2."""

    tls_client_names: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(COMMA_LIST, "FN_TLS_CLIENT_NAMES")
    )
    """Names of the load balancers that may connect (none = all that have a certificate of the
    authority). One of the names must be among the alternative names of the client's certificate. A
    common name counts only in a certificate without alternative names."""
