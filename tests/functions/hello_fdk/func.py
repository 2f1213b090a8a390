"""A function as its author writes it: only Fn's Python kit, nothing of hostler."""

import io
import json
import logging
import time
import uuid

from fdk import context, response  # type: ignore[import-not-found]

INSTANCE = uuid.uuid4().hex


def handler(ctx: context.InvokeContext, data: io.BytesIO) -> response.Response:
    """Greets ``{"name": …}``. ``status``, ``sleep`` and ``fail`` in the document try
    the other ways."""
    body = data.getvalue()
    asked = json.loads(body) if body else {}
    if asked.get("fail"):
        raise ValueError(asked["fail"])
    time.sleep(asked.get("sleep", 0))
    logging.getLogger().info("greeting %s", asked.get("name"))
    greeting = {
        "message": f"Hello {asked.get('name', 'World')}",
        "instance": INSTANCE,
        "call_id": ctx.CallID(),
        "fn_id": ctx.FnID(),
        "app_id": ctx.AppID(),
        "deadline": ctx.Deadline(),
        "tier": ctx.Config().get("TENANT_TIER"),
        "zone": ctx.Config().get("RUNNER_ZONE"),
        "method": ctx.Method(),
        "url": ctx.RequestURL(),
        "asked_by": ctx.Headers().get("x-asked-by"),
    }
    return response.Response(
        ctx,
        response_data=json.dumps(greeting),
        headers={"Content-Type": "application/json", "X-Greeting": "hello"},
        status_code=asked.get("status", 200),
    )
