"""The Docker driver: functions in containers of a Docker engine.

The Docker library (``docker.APIClient``) is used here and nowhere else. It blocks, so each of its
calls runs on a worker thread, under a name and a time limit (``engine``). Exits come from one
subscription to the engine's events (``running``). Creation and removal run to their end whatever
happens to their caller (``containers``).

* ``auth``: registry credentials: configuration files and credential helpers
* ``build``: images built from a directory, pushed, or loaded from an archive
* ``containers``: creation, start and proven removal of containers as background operations
* ``cookie``: Docker cookie: one container from its options to its removal, and the context all
  cookies share
* ``driver``: Docker driver: opening, start-up checks, cleaning up after dead instances, closing
* ``engine``: the Docker SDK on worker threads: operations with limits, streams, error translation
* ``image_cleaner``: removing unused images above a size limit, together with peer drivers
* ``images``: image references, leases and use order
* ``instance``: driver instances: which are alive, and the container this node runs in
* ``metrics``: the Docker driver's metrics under Fn's names
* ``networks``: network leases: the least used network, or a prepared name space
* ``options``: create options of a container: a task in, the engine's fields out
* ``prefork``: prefork pool: network name spaces made before a function needs one (figures inside)
* ``pulls``: image pulls shared by all who want the same image, with retries
* ``running``: a running container: exit events, output capture, run result
* ``stats``: resource samples of all containers at a bounded rate
"""

from .build import build_image, push_image
from .cookie import DockerCookie
from .driver import DockerDriver, open_docker_driver
from .engine import (
    LIMITS,
    EngineError,
    EngineOperation,
    EngineTimeout,
    EngineTooOld,
    EngineUnreachable,
    InitMissing,
)
from .image_cleaner import ImageStatistics, PeerDrivers
from .images import ImageReference, ImagesInUse, parse_image
from .metrics import (
    DockerMetrics,
    DockerStatistics,
    PreforkStatistics,
    default_docker_metrics,
)
from .options import DockerOptions
from .pulls import FOREVER, Backoff, RetryChecker, transient_trouble
from .running import DockerContainer

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
    "EngineOperation",
    "EngineTimeout",
    "EngineTooOld",
    "EngineUnreachable",
    "ImageReference",
    "ImageStatistics",
    "ImagesInUse",
    "InitMissing",
    "PeerDrivers",
    "PreforkStatistics",
    "RetryChecker",
    "build_image",
    "default_docker_metrics",
    "open_docker_driver",
    "parse_image",
    "push_image",
    "transient_trouble",
]
