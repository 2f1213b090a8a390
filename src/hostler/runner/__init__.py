"""The pure runner: a server of the runner protocol in front of an agent.

For example::

    async with open_docker_driver(config) as driver, open_agent(driver, config=config) as agent:
        async with open_pure_runner(agent, "0.0.0.0:9190") as runner:
            print(runner.address)
            await trio.sleep_forever()

* ``engagement``: one engagement on a runner: receive, submit, answer; its body, writers,
  reservation and outcome
* ``load_feed``: streams load hints to load balancers
* ``logs``: log streamer: function output for collectors that pull it
* ``service``: runner service: the protocol's RPCs over an agent, detached calls, drain
* ``status``: runner status: status image, checks, network barrier, and the hooks of an embedding
  program
"""

from .logs import FunctionLogs, LogStatistics
from .service import (
    PureRunner,
    PureRunnerService,
    RunnerOptions,
    RunnerStatistics,
    open_pure_runner,
    open_runner_service,
)
from .status import ConfigHandler, HealthChecker, Hooks, LogStreamer, StatusChecks

__all__ = [
    "ConfigHandler",
    "FunctionLogs",
    "HealthChecker",
    "Hooks",
    "LogStatistics",
    "LogStreamer",
    "PureRunner",
    "PureRunnerService",
    "RunnerOptions",
    "RunnerStatistics",
    "StatusChecks",
    "open_pure_runner",
    "open_runner_service",
]
