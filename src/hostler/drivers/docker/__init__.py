"""The Docker driver: functions in containers of a Docker engine.

The Docker library (``docker.APIClient``) is used here and nowhere else. It blocks, so every call
of it runs on a worker thread (``_engine``), under a name and a time limit (``_limits``). Exits
come from one subscription to the engine's events (``_exits``). Creation and removal run to their
end whatever happens to their caller (``_containers``).
"""

from ._build import build_image, push_image
from ._cleaner import ImageStatistics
from ._cookie import DockerCookie
from ._driver import DockerDriver, DockerStatistics, open_docker_driver
from ._errors import (
    EngineError,
    EngineTimeout,
    EngineTooOld,
    EngineUnreachable,
    InitMissing,
)
from ._image_cache import ImagesInUse
from ._limits import LIMITS, Operation
from ._metrics import DockerMetrics, default_docker_metrics
from ._neighbours import Neighbours
from ._options import DockerOptions
from ._prefork import PreforkStatistics
from ._reference import ImageReference, parse_image
from ._retry import FOREVER, Backoff, RetryChecker, transient_trouble
from ._running import DockerContainer

__all__ = [
    "FOREVER",
    "LIMITS",
    "Backoff",
    "DockerContainer",
    "DockerCookie",
    "DockerDriver",
    "DockerMetrics",
    "DockerOptions",
    "DockerStatistics",
    "EngineError",
    "EngineTimeout",
    "EngineTooOld",
    "EngineUnreachable",
    "ImageReference",
    "ImageStatistics",
    "ImagesInUse",
    "InitMissing",
    "Neighbours",
    "Operation",
    "PreforkStatistics",
    "RetryChecker",
    "build_image",
    "default_docker_metrics",
    "open_docker_driver",
    "parse_image",
    "push_image",
    "transient_trouble",
]
