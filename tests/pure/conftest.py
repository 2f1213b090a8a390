"""Properties are checked on machines that are busy with other things: no time limit each."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("pure", deadline=None)
hypothesis.settings.load_profile("pure")
