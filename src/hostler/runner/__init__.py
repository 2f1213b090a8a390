"""The pure runner: a server of the runner protocol in front of an agent.

async with open_docker_driver(config) as driver, open_agent(driver, config=config) as agent:
    async with open_pure_runner(agent, "0.0.0.0:9190") as runner:
        print(runner.address)
        await trio.sleep_forever()
"""

from ._open import PureRunner, open_pure_runner
from ._service import ConfigHandler, HealthChecker, Hooks, LogStreamer, RunnerStatistics

__all__ = [
    "ConfigHandler",
    "HealthChecker",
    "Hooks",
    "LogStreamer",
    "PureRunner",
    "RunnerStatistics",
    "open_pure_runner",
]
