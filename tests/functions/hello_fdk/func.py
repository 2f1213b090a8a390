"""A function as its author writes it: only Fn's Python kit, nothing of hostler."""

import io
import json
import logging

from fdk import context, response  # type: ignore[import-not-found]


def handler(ctx: context.InvokeContext, data: io.BytesIO) -> response.Response:
    """Greets ``{"name": …}``. ``status`` and ``fail`` in the document try the other ways."""
    body = data.getvalue()
    asked = json.loads(body) if body else {}
    if asked.get("fail"):
        raise ValueError(asked["fail"])
    logging.getLogger().info("greeting %s", asked.get("name"))
    greeting = {
        "message": f"Hello {asked.get('name', 'World')}",
        "call_id": ctx.CallID(),
        "fn_id": ctx.FnID(),
        "app_id": ctx.AppID(),
        "deadline": ctx.Deadline(),
        "tier": ctx.Config().get("TENANT_TIER"),
        "zone": ctx.Config().get("RUNNER_ZONE"),
    }
    return response.Response(
        ctx,
        response_data=json.dumps(greeting),
        headers={"Content-Type": "application/json", "X-Greeting": "hello"},
        status_code=asked.get("status", 200),
    )
