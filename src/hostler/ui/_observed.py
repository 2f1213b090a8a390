"""An agent whose calls are noted."""

from __future__ import annotations

from hostler.abc import CallAgent
from hostler.call import CallOption, PendingCall

from ._activity import Activity


class ObservedAgent(CallAgent):
    """Passes all on to ``inner``, and each call that is over to ``activity``.

    Unlike a listener it hears also of calls that never began, and of the error that ended a call.
    Of a detached call that ends after its submitter has gone it can't hear the end, so such calls
    are left out: for them ``activity`` has to listen.
    """

    def __init__(self, inner: CallAgent, activity: Activity) -> None:
        self._inner = inner
        self._activity = activity

    def get_call(self, *options: CallOption) -> PendingCall:
        return self._inner.get_call(*options)

    async def submit(self, call: PendingCall) -> None:
        try:
            await self._inner.submit(call)
        except BaseException as error:
            if call.model.type != "detached":
                self._activity.note(call, error)
            raise
        if call.model.type != "detached":
            self._activity.note(call)
