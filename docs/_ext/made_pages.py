"""The reference pages that are made of the code when the documentation is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from made_commands import commands_page
from made_errors import errors_page
from made_http import http_page
from made_metrics import metrics_page
from sphinx.application import Sphinx

PAGES: dict[str, Callable[[], str]] = {
    "commands": commands_page,
    "errors": errors_page,
    "http": http_page,
    "metrics": metrics_page,
}
"""Into `reference/made/`; git does not keep them."""


def write_pages(app: Sphinx) -> None:
    """Before Sphinx looks for pages. One that has not changed is not touched."""
    folder = Path(app.srcdir) / "reference" / "made"
    folder.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        path, text = folder / f"{name}.md", make()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
