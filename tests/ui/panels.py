"""The panel of a node, and calls that it shows."""

from __future__ import annotations

import attrs

from hostler.abc import CallRequest
from hostler.bodies import BytesBody
from hostler.calls import DiscardWriter, PendingCall
from hostler.models import Call
from hostler.ui import Activity, Panel


def call(
    fn_id: str = "f1", status: str = "success", error: str = "", fn_name: str = ""
) -> PendingCall:
    model = Call(id="c", fn_id=fn_id, image="img", status=status, error=error)
    model.config = {"PIN": "hunter2"}
    request = CallRequest(method="POST", url="/", headers={"Key": ["hunter2"]})
    return PendingCall(
        model=model,
        body=BytesBody(b"hunter2"),
        writer=DiscardWriter(),
        request=request,
        created_ns=0,
        fn_name=fn_name,
    )


@attrs.frozen
class Clock:
    """The clocks stand still."""

    unix: float
    ns: int

    def time(self) -> float:
        return self.unix

    def monotonic_ns(self) -> int:
        return self.ns


def note(activity: Activity, call: PendingCall) -> None:
    """``call`` ended well."""
    activity.note_end(call, None, began=True)


def panel(activity: Activity) -> Panel:
    return Panel(node="full", is_ready=lambda: True, activity=activity)
