# SPDX-License-Identifier: BSD-3-Clause
"""Configuration of the documentation site: see docs/README.md for the command."""

import os
import sys
from pathlib import Path

import fastrnn

os.environ.setdefault("KERAS_BACKEND", "torch")  # for the pages of fastrnn.keras

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

# --- what it is ------------------------------------------------------------------

project = "fastrnn"
copyright = "the fastrnn authors, BSD 3-Clause"
version = release = fastrnn.__version__
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    # In docs/_ext:
    "back_links",
    "command_help",
    "files",
    "mathml",
    "one_name",
    "pages",
    "results",
    "signatures",
]
templates_path = ["_templates"]
# What belongs to no page of its own. The gallery's generator writes a page of times.
exclude_patterns = ["_build", "README.md", "sg_execution_times.rst"]

# --- pages -----------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 4  # links such as page.md#a-heading
smartquotes_action = "qe"  # quotation marks and dots, but -- stays: it begins options

# --- reference -------------------------------------------------------------------

# `name` in a docstring is a link where it is a public name, and code everywhere else.
default_role = "py:obj"
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "groupwise"
autodoc_default_options = {
    # scikit-learn adds these, with its own text, to every estimator.
    "exclude-members": "__init__, set_fit_request, set_score_request",
}
numpydoc_show_class_members = False  # the template of a class has its own list
numpydoc_class_members_toctree = False
viewcode_line_numbers = True

# --- links -----------------------------------------------------------------------

nitpicky = True
nitpick_ignore_regex = [
    # A word in backticks that names nothing public: an argument, a value, a formula.
    ("py:obj", r".*"),
    # The bases of public classes that are of another package, or not for users.
    ("py:class", r"(torch|keras|sklearn|abc|typing|collections)\..*"),
    ("py:class", r"fastrnn\.\w+\._?\w+\..*|fastrnn\.sklearn\._.*"),
    ("py:class", r"object|dict|list|tuple|Generic|Array"),
]

# --- gallery ---------------------------------------------------------------------

# Data that an example of examples/ shares with nobody is in a module beside it.
_NO_EXAMPLES = (
    *("chorales", "digits", "espeak", "genome"),
    *("hindi", "memory_tasks", "pytorch_time", "reviews"),
)
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    # Nothing runs here: the examples need packages with data, and minutes. Their
    # pictures are in docs/pictures, tests/docs/test_examples.py runs them.
    "plot_gallery": False,
    "default_thumb_file": str(HERE.parent / "bench" / "results" / "ratio.png"),
    "ignore_pattern": rf"(?:^|[/\\])(?:{'|'.join(_NO_EXAMPLES)})\.py$",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("fastrnn",),
    "inspect_global_variables": False,
    "remove_config_comments": True,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
}

# --- appearance ------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"fastrnn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "fastrnn"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
# Front page and tutorial read better over the whole width.
html_sidebars = {"index": []}
html_math_renderer = "mathml"
