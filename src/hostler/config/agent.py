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

    freeze_idle_msecs: float = setting(MILLISECONDS, 50.0)
    """Minimum milliseconds that a container idles before it is paused; 0 = pause at once. Above 0,
    the time adapts to the cost of pausing and to how often the function is called."""

    hot_poll_msecs: float = setting(POSITIVE_MILLISECONDS, 200.0)
    """Milliseconds between two polls of a waiting call in Fn. No effect: hostler does not poll."""

    hot_launcher_timeout_msecs: float = setting(MILLISECONDS, 3_600_000.0)
    """Milliseconds that Fn keeps an idle slot queue. No effect: hostler drops an empty queue at
    once, because making a queue costs nothing."""

    keep_alive: str = setting(NON_EMPTY, "fixed")
    """How long idle containers stay. ``fixed`` = for their function's idle timeout. ``predictive``
    = where the same memory saves most; containers may then start ahead of calls.
    ``module:attribute`` = a policy of your own. Ours."""

    keep_alive_percent: int = setting(number(1, 100_000), 100)
    """Memory that the policy ``predictive`` may use, as a percentage of the memory that the
    functions' idle timeouts would keep idle on average. Ours."""

    slot_wait_msecs: float = setting(MILLISECONDS, math.inf)
    """Milliseconds that a call may wait for a container before it is refused. Ours."""

    max_wait: float = setting(SECONDS, 10.0)
    """Maximum expected wait, in seconds, of a call for a container. Concerns calls that did not
    come from a load balancer. A call with a longer expected wait gets a 503 at once. A client that
    says how long it waits (``Fn-Request-Timeout``) sets another limit. The limit is lower while
    clients of the function leave sooner. Ours."""

    reservation_msecs: float = setting(MILLISECONDS, 2_000.0)
    """Milliseconds that a reserved container is held until its load balancer says that the call
    shall run; 0 = no reservations are taken. Ours."""

    hot_pull_timeout_msecs: float = setting(MILLISECONDS, 600_000.0)
    """Milliseconds that the pull of an image may take."""

    hot_start_timeout_msecs: float = setting(MILLISECONDS, 5_000.0)
    """Milliseconds from the start of a container in which its socket must be ready."""

    launch_concurrency: int = setting(number(low=1), 8)
    """Maximum number of containers that are created and started at the same time. Ours."""

    drain_grace_msecs: float = setting(MILLISECONDS, 30_000.0)
    """Milliseconds that running calls get to finish when the agent closes. Ours: Fn waits without
    limit."""

    enable_fdk_debug_info: bool = setting(FLAG, False, in_code=True)
    """Whether a function finds the id of the call that launched its container in
    ``FN_SPAWN_CALL_ID``. Set in code only."""

    # --- responses and logs ---

    max_response_size: int = setting(_SIZE, 0)
    """Maximum bytes of a response body; 0 = no limit."""

    max_hdr_response_size: int = setting(_SIZE, 0)
    """Maximum bytes of a response head; 0 = 10 MiB."""

    max_log_size_bytes: int = setting(_INT64_SIZE, 1_048_576)
    """Maximum bytes of a function's output that are logged, or kept, for each call; 0 = nothing. If
    there is more, a last line says so. Log streams have a limit of their own."""

    disable_debug_user_logs: bool = setting(FLAG, False)
    """Whether the debug log of ``hostler serve`` and ``runner`` leaves out the lines that functions
    print. At other log levels the lines are not captured for the log."""

    # --- resources ---

    max_total_cpu_mcpus: int = setting(_SIZE, 0)
    """Milli-CPUs for all containers together; 0 = all that the machine has."""

    max_total_memory_bytes: int = setting(_SIZE, 0)
    """Bytes of memory for all containers together; 0 = all that the machine has."""

    enable_nb_resource_tracker: bool | Literal["auto"] = setting(FLAG_OR_AUTO, False)
    """Whether a call that finds no room is refused at once (NACK), so that an LB can try another
    runner. Otherwise the call waits. ``auto``, the default of ``hostler runner``, refuses calls of
    hostler's load balancers, where refused calls wait in order. Calls of other load balancers,
    which would ask again every 10 ms, wait on the runner, as is Fn's default."""

    # --- limits of one container ---

    max_fs_size_mb: int = setting(_SIZE, 0)
    """Maximum MB of a container's own storage; 0 = no limit."""

    max_pids: int = setting(_INT64_SIZE, 50)
    """Maximum number of processes in a container; 0 = no limit."""

    max_open_files: int | None = setting(_ULIMIT, 350)
    """Maximum number of open files of a process (ulimit ``nofile``). ``None``, in code only, = the
    engine's own limit, for this setting and the next three."""

    max_locked_memory: int | None = setting(_ULIMIT, 65_536)
    """Maximum bytes of locked memory (ulimit ``memlock``)."""

    max_pending_signals: int | None = setting(_ULIMIT, 5_000)
    """Maximum number of queued signals (ulimit ``sigpending``)."""

    max_message_queue: int | None = setting(_ULIMIT, 819_200)
    """Maximum bytes of POSIX message queues (ulimit ``msgqueue``)."""

    max_tmpfs_inodes: int = setting(_SIZE, 0)
    """Maximum number of inodes of a container's ``/tmp``, even if the function sets no size for it;
    0 = no limit."""

    disable_readonly_rootfs: bool = setting(FLAG, False)
    """Whether functions may write to their image's file system."""

    disable_unprivileged_containers: bool = setting(FLAG, False)
    """Whether containers run as the image's user and with its capabilities."""

    # --- the socket directory ---

    iofs_path: str = setting(ABSOLUTE_PATH, "")
    """Directory for the containers' socket directories; none = the system's temporary directory."""

    iofs_docker_path: str = setting(ABSOLUTE_PATH, "")
    """The same directory as the engine's host sees it; none = at the same path."""

    iofs_tmpfs: bool | None = setting(OPTIONAL_FLAG, None)
    """Whether each socket directory is a small tmpfs of its own, which limits what a function can
    write there (none = yes, where that is possible). Fn's default is no."""

    iofs_opts: str = setting(TEXT, "")
    """Mount options of that tmpfs, beside ``noexec,nosuid,nodev`` and after
    ``size=64k,nr_inodes=32``."""

    # --- Docker ---

    container_label_tag: str = setting(TEXT, "")
    """Label of this agent's containers. An agent with a label removes at its start the containers
    that an earlier agent with the same label left behind."""

    docker_networks: tuple[str, ...] = setting(WORDS, ())
    """Networks (none = the default network). Each container joins the network with the fewest
    containers."""

    docker_load_file: str = setting(TEXT, "")
    """Archive of images to load at the start."""

    docker_auth: str = setting(TEXT, "", secret=True)
    """Registry credentials as JSON; see the page on images."""

    min_docker_version: str = setting(NON_EMPTY, "17.10.0-ce", in_code=True)
    """Oldest engine that is accepted. Set in code only."""

    image_enable_volume: bool = setting(FLAG, False)
    """Whether images may declare volumes."""

    image_pull_retries: int = setting(number(high=1_000), 5)
    """Number of times that a pull is tried again after a problem that may pass; 0 = never. Ours:
    Fn's default is never."""

    image_pull_retry_interval_msecs: int = setting(number(1, 3_600_000), 500)
    """Upper bound, in milliseconds, of the random wait before the first retry. The bounds of the
    later waits are 3, 7, 15, ... times that. Ours."""

    image_pull_retry_max_delay_msecs: int = setting(number(1, 3_600_000), 10_000)
    """Upper bound, in milliseconds, of the wait before any retry. Ours."""

    image_clean_max_size: int = setting(_SIZE, 0)
    """Total bytes of images from which on unused images are removed; 0 = never. See the page on
    images."""

    image_clean_exempt_tags: tuple[str, ...] = setting(WORDS, ())
    """Images that are never removed. A name without a tag means ``latest``."""

    # --- the pool of network name spaces ---

    experimental_prefork_pool_size: int | None = setting(number(high=10_000, optional=True), None)
    """Number of containers kept for their network name space; 0 = no pool (none = as many as
    ``prepared_networks`` says if the engine's runtime can share a name space, else 0). Fn's default
    is 0."""

    prepared_networks: int = setting(number(high=10_000), 16, in_code=True)
    """Number of containers in the pool for each of the engine's CPUs, if
    ``experimental_prefork_pool_size`` is not set. Each container costs the machine a shim process
    of the engine, 4 MB. Ours."""

    prepared_networks_limit: int = setting(number(high=10_000), 32, in_code=True)
    """Maximum number of these containers while no function uses any, because everybody who lists
    containers sees them. Used containers are replaced, up to twice as many in all. Ours."""

    experimental_prefork_image: str = setting(TEXT, "")
    """Image of these containers (none = one that the driver makes itself). Fn's default is
    busybox."""

    experimental_prefork_cmd: str = setting(TEXT, "tail -f /dev/null")
    """Command of these containers, if an image is set."""

    experimental_prefork_use_once: int = setting(_SIZE, 0)
    """Whether such a container is restarted after each use; 0 = no, any other number = yes."""

    experimental_prefork_networks: tuple[str, ...] = setting(WORDS, ())
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

    multiplex_calls: int = setting(number(high=4096), 512)
    """Maximum number of calls that a load balancer may have at once on a stream that they share; 0
    = such streams are not offered. A load balancer has one such stream for each connection."""

    runner_keepalive_interval: float = setting(SECONDS, 60.0)
    """Seconds of silence on a connection after which a ping asks whether the load balancer's
    process still lives. Clients accept any number of pings; only servers count them."""

    runner_keepalive_timeout: float = setting(SECONDS, 20.0)
    """Seconds in which the load balancer must answer that ping. Otherwise the runner gives the
    connection up and cancels its calls, except acknowledged detached calls."""

    runner_vanished_timeout: float = setting(SECONDS, 30.0)
    """Seconds after which the runner notices that a host has silently vanished from the network.
    The kernel probes in whole seconds: at least 2."""

    tls_client_names: tuple[str, ...] = setting(COMMA_LIST, ())
    """Names of the load balancers that may connect (none = all that have a certificate of the
    authority). One of the names must be among the alternative names of the client's certificate. A
    common name counts only in a certificate without alternative names."""
