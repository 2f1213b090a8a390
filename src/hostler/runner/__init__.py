"""The pure runner: a server of the runner protocol in front of an agent.

For example::

    async with open_docker_driver(config) as driver, open_agent(driver, config=config) as agent:
        async with open_pure_runner(agent, "0.0.0.0:9190") as runner:
            print(runner.address)
            await trio.sleep_forever()
"""

from ._hooks import ConfigHandler, HealthChecker, Hooks, LogStreamer, StatusChecks
from ._logs import FunctionLogs, LogStatistics
from ._open import PureRunner, open_pure_runner
from ._service import PureRunnerService, RunnerStatistics, open_runner_service

__all__ = [
    "ConfigHandler",
    "FunctionLogs",
    "HealthChecker",
    "Hooks",
    "LogStatistics",
    "LogStreamer",
    "PureRunner",
    "PureRunnerService",
    "RunnerStatistics",
    "StatusChecks",
    "open_pure_runner",
    "open_runner_service",
]
