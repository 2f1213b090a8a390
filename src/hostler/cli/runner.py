"""``hostler runner``."""

from __future__ import annotations

import os
import sys

import attrs
import click

from ..nodes.extensions import load_extensions
from ..nodes.lifetime import Node
from ..nodes.parts import check_runner
from ..nodes.settings import RunnerSettings
from .options import (
    ContainerOptions,
    NodeOptions,
    TLSOptions,
    bundle,
    container_options,
    file,
    given,
    insecure_option,
    node_options,
    option,
    overlay,
    tls_options,
)
from .process import run_node


@attrs.frozen
class ListenOptions:
    """Where the runner listens, who may reach it, and how many processes it has."""

    bind: str | None
    http_bind: str | None
    insecure: bool
    workers: int | None


@attrs.frozen
class ServiceOptions:
    """What the runner does for load balancers beside running calls."""

    detached: bool
    status_image: str
    network_barrier: str
    stream_logs: bool
    hooks: str


@click.command()
@container_options("docker")
@bundle(
    ListenOptions,
    "listening",
    option(
        "--bind",
        help="host:port for the runner protocol (gRPC); port 0 = any free port. "
        "[default: all interfaces, FN_GRPC_PORT or 9190]",
    ),
    option(
        "--http-bind",
        envvar="FN_HTTP_BIND",
        help="host:port for /metrics, /healthz, /readyz, /version and the page at /ui. Off by "
        "default.",
    ),
    insecure_option,
    option(
        "--workers",
        type=int,
        help="Number of processes, to use several cores; 0 = one for each CPU. Each is a runner of "
        "its own, with its share of the machine. They use the port of --bind and the ports after "
        "it. [env var: FN_RUNNER_WORKERS; default: 1]",
    ),
)
@bundle(
    ServiceOptions,
    "service",
    option(
        "--detached/--no-detached",
        envvar="FN_DETACHED",
        default=True,
        show_default=True,
        help="Accept detached calls.",
    ),
    option(
        "--status-image",
        envvar="FN_STATUS_IMAGE",
        default="",
        help="Image that the runner runs to check its own health. Functions must not use it.",
    ),
    option(
        "--network-barrier",
        envvar="FN_NETWORK_BARRIER",
        type=file,
        default="",
        help="File that shows that the network is enabled. While it is missing, the status says "
        "that the network is disabled, and the status image runs without a network.",
    ),
    option(
        "--stream-logs/--no-stream-logs",
        envvar="FN_STREAM_LOGS",
        default=False,
        show_default=True,
        help="Keep the output of functions for log collectors (StreamLogs).",
    ),
    option(
        "--hooks",
        envvar="FN_RUNNER_HOOKS",
        default="",
        help="module:attribute of a callable that returns hostler.runner.Hooks: a health checker, "
        "and handlers of ConfigureRunner and StreamLogs.",
    ),
)
@tls_options
@node_options
def runner(
    containers: ContainerOptions,
    listening: ListenOptions,
    service: ServiceOptions,
    tls: TLSOptions,
    node: NodeOptions,
) -> None:
    """Run a pure runner: it runs the calls that load balancers place on it.

    If there is no room, a call from a hostler load balancer is refused at once, so that the load
    balancer can try another runner; a call from any other load balancer waits here.
    FN_ENABLE_NB_RESOURCE_TRACKER=true refuses both, false lets both wait.
    """
    from ..nodes.workers import place_in, workers_of

    place = place_in(os.environ)

    def make() -> Node:
        options = {
            **node.variables(),
            "FN_KEEP_ALIVE": containers.keep_alive,
            "FN_RUNNER_WORKERS": listening.workers,
        }
        settings = RunnerSettings(
            env=overlay(options),
            extension_names=node.extensions,
            driver=containers.driver,
            http_bind=listening.http_bind or "",
            insecure=listening.insecure,
            detached=service.detached,
            status_image=service.status_image,
            network_barrier=service.network_barrier,
            stream_logs=service.stream_logs,
            hooks=service.hooks,
            pki=tls.pki(),
            overrider=node.overrider or "",
            **given(bind=listening.bind),
        )
        extensions = load_extensions(settings)
        check_runner(settings, extensions)
        if place is None and (count := workers_of(settings.node.runner_workers)) > 1:
            from ..nodes.workers.runners import RunnersNode

            return RunnersNode(settings=settings, count=count)

        from ..nodes.runner import RunnerNode

        return RunnerNode(settings=settings, extensions=extensions, place=place)

    sys.exit(run_node(make, node.ready_fd, place))
