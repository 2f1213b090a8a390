"""The calls of the engine that the driver makes: their threads and their time limits.

Each group of calls has threads, connections and a client of its own, so that calls which take
long can't keep a quick one waiting: a pause must not queue behind forty image pulls.
"""

from __future__ import annotations

import enum
import math


class Threads(enum.Enum):
    """The groups; the value is the text in logs."""

    QUERY = "query"
    CREATE = "create"
    REMOVE = "remove"
    PAUSE = "pause"
    TRANSFER = "transfer"
    EVENTS = "events"
    OUTPUT = "output"
    STATISTICS = "statistics"


THREADS: dict[Threads, float] = {
    Threads.QUERY: 8,
    Threads.CREATE: 16,
    Threads.REMOVE: 16,
    Threads.PAUSE: 16,
    Threads.TRANSFER: 8,
    Threads.EVENTS: 1,
    # One thread for each container whose output is captured. A bound would make the container
    # after the last wait for another one's end.
    Threads.OUTPUT: math.inf,
    # One question at a time; the second thread is for a question that was left behind.
    Threads.STATISTICS: 2,
}
"""How many calls of a group may be under way at once."""


class Operation(enum.Enum):
    """The calls; the value is the text in errors."""

    CONNECT = "connect"
    INFO = "describe itself"
    LIST = "list containers"
    INSPECT_CONTAINER = "inspect container"
    INSPECT_IMAGE = "inspect image"
    CREATE = "create container"
    START = "start container"
    REMOVE = "remove container"
    PAUSE = "pause container"
    UNPAUSE = "unpause container"
    PULL = "pull image"
    LOAD = "load images"
    BUILD = "build image"
    PUSH = "push image"
    MEASURE_IMAGES = "measure images"
    REMOVE_IMAGE = "remove image"
    CLOCK = "read the clock"
    EVENTS = "follow events"
    ATTACH = "attach to container"
    STATISTICS = "read statistics"


GROUP: dict[Operation, Threads] = {
    Operation.CONNECT: Threads.QUERY,
    Operation.INFO: Threads.QUERY,
    Operation.LIST: Threads.QUERY,
    Operation.INSPECT_CONTAINER: Threads.QUERY,
    Operation.INSPECT_IMAGE: Threads.QUERY,
    Operation.CREATE: Threads.CREATE,
    Operation.START: Threads.CREATE,
    Operation.REMOVE: Threads.REMOVE,
    Operation.PAUSE: Threads.PAUSE,
    Operation.UNPAUSE: Threads.PAUSE,
    Operation.PULL: Threads.TRANSFER,
    Operation.LOAD: Threads.TRANSFER,
    Operation.BUILD: Threads.TRANSFER,
    Operation.PUSH: Threads.TRANSFER,
    Operation.MEASURE_IMAGES: Threads.QUERY,
    Operation.REMOVE_IMAGE: Threads.REMOVE,
    Operation.CLOCK: Threads.QUERY,
    Operation.EVENTS: Threads.EVENTS,
    Operation.ATTACH: Threads.OUTPUT,
    Operation.STATISTICS: Threads.STATISTICS,
}

LIMITS: dict[Operation, float] = {
    Operation.CONNECT: 10,
    Operation.INFO: 10,
    Operation.LIST: 60,
    Operation.INSPECT_CONTAINER: 10,
    Operation.INSPECT_IMAGE: 10,
    Operation.CREATE: 60,
    Operation.START: 60,
    Operation.REMOVE: 60,
    Operation.PAUSE: 5,
    Operation.UNPAUSE: 5,
    Operation.PULL: 300,
    Operation.LOAD: 600,
    Operation.BUILD: 600,
    Operation.PUSH: 300,
    Operation.MEASURE_IMAGES: 60,
    Operation.REMOVE_IMAGE: 60,
    Operation.CLOCK: 10,
    Operation.EVENTS: 10,
    Operation.ATTACH: 10,
    Operation.STATISTICS: 10,
}
"""Seconds that a call may take, the wait for a thread included. For the calls that stream
(pull, load, build, push, events, attach) it is the longest silence of the engine instead; their
whole time is the caller's to limit. List, remove image, pause and unpause are Fn's limits, the
others are generous for a healthy engine under load."""
