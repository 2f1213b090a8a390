"""What a runner that has died leaves on a real engine."""

from __future__ import annotations

import docker


def leave_container(engine: docker.APIClient, image: str, tag: str, instance: str) -> str:
    labels = {"fn-agent-classifier": tag, "fn-agent-instance": instance}
    created = engine.create_container(image, labels=labels, environment={"FNT_START": "hang"})
    return str(created["Id"])
