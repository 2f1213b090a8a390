"""Links to files of the repository that are no pages: to their names.

The pages are also read where they lie, and there such links lead somewhere. In the built pages,
which may be anywhere, they are the path as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def show_paths(app: Sphinx, document: nodes.document) -> None:
    """Replace references to files outside of the pages."""
    for reference in [*document.findall(download_reference), *document.findall(pending_xref)]:
        target = reference.get("reftarget", "").partition("#")[0]
        page = Path(app.env.doc2path(app.env.docname))
        path = (page.parent / target).resolve()
        if reference.get("refdomain") == "doc" and not path.exists():
            path = path.with_name(f"{path.name}.md")
        if path.exists() and path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs"):
            text = nodes.literal(text=str(path.relative_to(ROOT)))
            reference.replace_self(text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", show_paths)
    return {"parallel_read_safe": True}
