"""``hostler lb``."""

from __future__ import annotations

import os
import sys

import attrs
import click

from ..functions import load_functions
from ..nodes.extensions import check_lb, load_extensions
from ..nodes.lifetime import Node
from ..nodes.settings import LBSettings
from .options import (
    NodeOptions,
    TLSOptions,
    bind_option,
    bundle,
    functions_option,
    given,
    node_options,
    option,
    overlay,
    pem_options,
)
from .process import run_node


@attrs.frozen
class PlacementOptions:
    """Whose calls go where."""

    api_url: str | None
    runners: str | None
    placer: str | None


@attrs.frozen
class PortOptions:
    """The port, and how many processes share it."""

    workers: int | None
    bind: str | None


@attrs.frozen
class ClientTLSOptions(TLSOptions):
    """PEM files, and the name that the runners' certificates must have."""

    tls_name: str


@click.command()
@functions_option
@bundle(
    PlacementOptions,
    "placement",
    option(
        "--api-url",
        help="URL of the node whose API knows the apps and functions: http://host:port. "
        "[env var: FN_RUNNER_API_URL]",
    ),
    option(
        "--runners",
        help="Runners, separated by commas: host:port, dns://name:port (every address of the name) "
        "or srv://name (every address in its SRV records). [env var: FN_RUNNER_ADDRESSES]",
    ),
    option(
        "--placer",
        help="Placer: naive, ch (consistent hash), least-loaded, bounded (ch with bounded loads), "
        "warm, or module:attribute of a callable that takes a PlacerConfig and returns a Placer. "
        "[env var: FN_PLACER; default: warm]",
    ),
)
@bundle(
    PortOptions,
    "port",
    option(
        "--workers",
        type=int,
        help="Number of processes that share the port, to use several cores; 0 = one for each CPU. "
        "[env var: FN_LB_WORKERS; default: 1]",
    ),
    bind_option("all interfaces"),
)
@bundle(
    ClientTLSOptions,
    "tls",
    pem_options,
    option(
        "--tls-name",
        envvar="FN_TLS_NAME",
        default="",
        help="Name in the runners' certificates, if it differs from their host names.",
    ),
)
@node_options
def lb(
    functions: str,
    placement: PlacementOptions,
    port: PortOptions,
    tls: ClientTLSOptions,
    node: NodeOptions,
) -> None:
    """Run a load balancer: it takes calls over HTTP and places them on runners."""
    from ..nodes.workers import LBWorkers, Supervisor, place_in, workers_of

    place = place_in(os.environ)

    def make() -> Node:
        options = {
            **node.variables(),
            "FN_RUNNER_API_URL": placement.api_url,
            "FN_RUNNER_ADDRESSES": placement.runners,
            "FN_PLACER": placement.placer,
            "FN_LB_WORKERS": port.workers,
        }
        settings = LBSettings(
            env=overlay(options),
            extension_names=node.extensions,
            functions=load_functions(functions) if functions else None,
            pki=tls.pki(),
            tls_name=tls.tls_name,
            overrider=node.overrider or "",
            **given(bind=port.bind),
        )
        extensions = load_extensions(settings)
        check_lb(settings, extensions)
        if place is None and (count := workers_of(settings.node.lb_workers)) > 1:
            crew = LBWorkers(settings.bind, settings.node.runner_addresses)
            return Supervisor(settings=settings, count=count, crew=crew)

        from ..nodes.lb import LBNode  # (what only supervises has no use for it)

        return LBNode(settings=settings, extensions=extensions, place=place)

    sys.exit(run_node(make, node.ready_fd, place))
