"""How Sphinx builds the site: `make docs`. The pages are those that the repository shows; nothing is written twice."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
DOCS = Path(__file__).parent
# What builds the site, and the examples that the gallery shares with the guides.
sys.path[:0] = [str(DOCS), str(DOCS / "examples")]

import gradtap

project = "gradtap"
author = "The gradtap authors"
copyright = author
version = release = gradtap.__version__

extensions = ["myst_parser", "sphinx_gallery.gen_gallery", "website.formulas", "website.pages"]
exclude_patterns = ["_build", "gallery", "examples", "website", "images"]

# Headings are linked to as on GitHub; formulas stand between dollar signs.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

# The gallery is run: a number that no longer holds fails its script's assert, and with it the build.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "made/gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "website.figures.InReadingOrder",
    "image_scrapers": ("website.figures.scrape",),
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "remove_config_comments": True,
    # Also those that have not changed: what they check may have.
    "run_stale_examples": True,
    "show_memory": False,
    "show_signature": False,
    # Its table of times would fetch scripts from elsewhere.
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"gradtap {release}"
html_static_path = ["website/static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sourcelink = False
# MathML needs no script; nothing on the site is fetched from elsewhere.
html_math_renderer = "mathml"
# Addresses and shapes are code: no quotation marks or dashes are made of theirs.
smartquotes = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
nitpicky = True
