"""``hostler runner``."""

from __future__ import annotations

import os
import sys

import click

from ..config import NodeConfig
from ..nodes.parts import check_reach
from ..nodes.settings import pki_of
from .options import (
    DRIVERS,
    file,
    insecure_option,
    keep_alive_option,
    life_options,
    life_settings,
    make_settings,
    option,
    overrider_option,
    tls_options,
)
from .process import Node, run_node


@click.command()
@option("--driver", envvar="FN_DRIVER", default="docker", show_default=True, help=DRIVERS)
@keep_alive_option
@option(
    "--bind",
    help="host:port of the runner protocol (gRPC); port 0: any. "
    "[default: all interfaces, FN_GRPC_PORT or 9190]",
)
@option(
    "--http-bind",
    envvar="FN_HTTP_BIND",
    help="host:port for /metrics, /healthz, /readyz and /version; off if unset.",
)
@insecure_option
@option(
    "--workers",
    type=int,
    help="Processes, to use several cores: each a runner of its own, on the port of --bind and "
    "those that follow, with its part of the machine; 0 = one for each CPU. "
    "[FN_RUNNER_WORKERS, default: 1]",
)
@option(
    "--detached/--no-detached",
    envvar="FN_DETACHED",
    default=True,
    show_default=True,
    help="Whether the runner takes detached calls.",
)
@option(
    "--status-image",
    envvar="FN_STATUS_IMAGE",
    default="",
    help="Image that the runner runs to check its own health; calls must not name it.",
)
@option(
    "--network-barrier",
    envvar="FN_NETWORK_BARRIER",
    type=file,
    default="",
    help="File that shows that the network is enabled. While it is missing, the status says that "
    "the network is disabled, and the status image runs without a network.",
)
@option(
    "--stream-logs/--no-stream-logs",
    envvar="FN_STREAM_LOGS",
    default=False,
    show_default=True,
    help="Whether the runner keeps the output of functions for log collectors (StreamLogs).",
)
@option(
    "--hooks",
    envvar="FN_RUNNER_HOOKS",
    default="",
    help="module:attribute of a callable that returns hostler.runner.Hooks: a health checker, "
    "and handlers of ConfigureRunner and StreamLogs.",
)
@tls_options
@overrider_option
@life_options
def runner(
    driver: str,
    keep_alive: str | None,
    bind: str | None,
    http_bind: str | None,
    insecure: bool,
    workers: int | None,
    detached: bool,
    status_image: str,
    network_barrier: str,
    stream_logs: bool,
    hooks: str,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    overrider: str | None,
    grace: float | None,
    ready_fd: int | None,
    log_format: str | None,
    log_level: str | None,
) -> None:
    """A pure runner: runs the calls that load balancers place here.

    A call of a hostler load balancer that finds no room is refused at once, so that another runner
    can be tried; those of other load balancers wait here. FN_ENABLE_NB_RESOURCE_TRACKER=true
    refuses all, false none."""
    from ..nodes.workers import place_in, workers_of

    place = place_in(os.environ)

    def make() -> tuple[NodeConfig, Node]:
        options = {
            **life_settings(log_format, log_level, grace),
            "FN_KEEP_ALIVE": keep_alive,
            "FN_RUNNER_WORKERS": workers,
        }
        made = make_settings(options, bind=bind, overrider=overrider, grpc=True, containers=True)
        pki = pki_of(tls_ca, tls_cert, tls_key)
        check_reach(
            driver,
            made.bind,
            protected=pki is not None,
            by="mTLS (--tls-ca, --tls-cert, --tls-key)",
            insecure=insecure,
        )
        if place is None and (count := workers_of(made.node.runner_workers)) > 1:
            from ..nodes.workers.runners import RunnersNode

            return made.node, RunnersNode(settings=made, http_bind=http_bind, count=count)

        from ..nodes.runner import RunnerNode
        from ..runner import StatusChecks

        return made.node, RunnerNode(
            settings=made,
            driver=driver,
            http_bind=http_bind,
            detached=detached,
            checks=StatusChecks(image=status_image, barrier=network_barrier),
            stream_logs=stream_logs,
            hooks=hooks,
            pki=pki,
            place=place,
        )

    if place is None:
        sys.exit(run_node(make, ready_fd))
    sys.exit(run_node(make, place.ready, place.orders))
