"""How Sphinx builds the documentation: scripts/docs."""

import logging
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

# What the code says while its description is made.
logging.getLogger("alembic").setLevel(logging.WARNING)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

project = "hostler"
author = "the hostler authors"
version = release = installed_version("hostler")

extensions = ["myst_parser", "sphinx.ext.autodoc", "made_pages", "repository_links"]
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = "hostler"
html_show_copyright = False

myst_heading_anchors = 3
# Single backticks in docstrings.
default_role = "literal"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
