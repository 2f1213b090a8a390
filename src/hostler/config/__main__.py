"""``python -m hostler.config`` prints the reference page of the settings."""

from __future__ import annotations

import sys

from ._reference import reference_page

if __name__ == "__main__":
    sys.stdout.write(reference_page())
