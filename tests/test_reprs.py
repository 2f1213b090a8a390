"""What may hold secrets does not show where a value is printed, as in a traceback or a log."""

from __future__ import annotations

import pytest

from hostler.abc import CallRequest, ContainerTask
from hostler.calls import CallDraft, build_call
from hostler.models import App, Call, Fn
from hostler.options import with_extensions
from hostler.protocol import TryCall

SECRET = "s3cret"
PAIRS = {"FN_REGISTRY_TOKEN": SECRET}
HEADERS = {"Authorization": [SECRET]}

MODEL = Call(id="c", config=PAIRS, headers=HEADERS)
REQUEST = CallRequest(method="POST", url="/", headers=HEADERS)


def _fill(draft: CallDraft) -> None:
    draft.model, draft.request = MODEL, REQUEST


@pytest.mark.parametrize(
    "value",
    [
        MODEL,
        REQUEST,
        CallDraft(model=MODEL, request=REQUEST, extensions=PAIRS),
        build_call([_fill, with_extensions(PAIRS)]),
        ContainerTask(id="t", image="i", env=PAIRS, extensions=PAIRS, registry_token=SECRET),
        TryCall(f'{{"config":{{"PASSWORD":"{SECRET}"}}}}', extensions=PAIRS),
        App(id="a", name="a", config=PAIRS),
        Fn(id="f", name="f", app_id="a", image="i", config=PAIRS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_repr_has_a_secret(value: object) -> None:
    assert type(value).__name__ in repr(value)
    assert SECRET not in repr(value)
