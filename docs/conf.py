"""Sphinx: what builds the pages, and how.

    sphinx-build -W --keep-going -n docs docs/_build/html

runs every example but those in SLOW, which train for minutes; `-D sphinx_gallery_conf.filename_pattern=/plot_` runs them all.
"""

import sys
import warnings
from pathlib import Path

import matplotlib

import fastconv

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE / "figures")]
matplotlib.use("agg")

SLOW = ("autoencoder",)
SINGLE = ("start", "choosing", "speed", "performance/*", "embedding", "gpu", "support", "changes")  # in no section

project = "fastconv"
author = "the fastconv developers"
copyright = author
version = release = fastconv.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # pages are read without a network too
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",  # CHANGELOG.md and CONTRIBUTING.md are pages too
    "numpydoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "computed",
]
exclude_patterns = ["_build", "examples/*.rst", "examples/*.py"]
default_role = "py:obj"  # `conv2d` in a docstring is a link where there is such a thing, else a word of code
nitpick_ignore_regex = [("py:obj", ".*"), ("py:class", ".*")]  # for the same reason; types are words: "ndarray, (N, C, H, W)"
suppress_warnings = ["myst.header"]  # CONTRIBUTING.md is included below a title of its own
modindex_common_prefix = ["fastconv."]
pygments_style = "friendly"
smartquotes = False  # quotes here are mostly those of code

# API ------------------------------------------------------------------------------------------------------------------

add_module_names = False
autodoc_typehints = "none"  # the docstrings say more: shapes
autosummary_generate = True
autosummary_ignore_module_all = False
numpydoc_show_class_members = False  # templates/autosummary/class.rst lists them
templates_path = ["templates"]
# Offline builds have no other project's inventory to ask; a link to one of them would be a plain word there.
intersphinx_mapping: dict[str, tuple[str, None]] = {}

# Figures --------------------------------------------------------------------------------------------------------------

plot_basedir = str(HERE / "figures")
plot_formats = [("svg", 100)]
plot_include_source = False
plot_html_show_source_link = plot_html_show_formats = False
plot_rcparams = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}

# Gallery --------------------------------------------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": ["examples"],
    "gallery_dirs": ["tutorials"],
    "filename_pattern": rf"/plot_(?!{'|'.join(SLOW)})",
    "within_subsection_order": "computed.example_order",
    "min_reported_time": 5,
    "remove_config_comments": True,
    "capture_repr": (),  # what is printed is shown, not what a last line returns
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "copyfile_regex": r".*\.rst",
    "plot_gallery": True,
    "backreferences_dir": None,
}
warnings.filterwarnings("ignore", message="Matplotlib is currently using agg")

# Pages ----------------------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "fastconv"
html_static_path = ["static"]
html_css_files = ["fastconv.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "fastconv"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 9,
    "secondary_sidebar_items": {page: ["page-toc"] for page in (*SINGLE, "api/**")},  # elsewhere code takes the room
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}
html_sidebars = {page: [] for page in (*SINGLE, "contributing")}
