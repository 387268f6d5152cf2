"""Settings of the site; everything that needs code is in docs/_ext/dian_sphinx.

Built as ``sphinx-build -c . docs build/html``. Paths of extensions for the gallery
are relative to docs/, the others to this file.
"""

import importlib.metadata
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

if not __debug__:
    raise SystemExit(
        "conf.py: without assertions a wrong figure would not stop the build; "
        "unset PYTHONOPTIMIZE"
    )

sys.path.insert(0, str(Path(__file__).parent / "docs/_ext"))

project = "Dian"
author = "The developers of Dian"
copyright = "The developers of Dian"
release = importlib.metadata.version("dian")
html_title = project

extensions = [
    "myst_nb",  # brings the MyST parser
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_design",
    "dian_sphinx",  # ours, in docs/_ext
]
exclude_patterns = ["_ext", "_templates", "gallery/**.ipynb", "gallery/**/*.ipynb"]

# --- Text -------------------------------------------------------------------------
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist"]
myst_enable_extensions += ["dollarmath"]
myst_heading_anchors = 3
numfig = math_numfig = True
numfig_secnum_depth = 1  # (1.17) is in chapter 1 or on a gallery page of it
bibtex_bibfiles = ["docs/references.bib"]
bibtex_default_style = "unsrt"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --- API: what is not ours has no page here, and nothing is fetched to link to it ----
autosummary_generate = False  # dian_sphinx.api writes the stubs
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False  # the title of a page is the name of the module
viewcode_follow_imported_members = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # they stand in the signature of the class
nitpick_ignore_regex = [
    ("py:.*", r"(?!dian\.)[a-z_]\w*\..+"),  # torch.Tensor, pathlib.Path, ...
    ("py:class", "Tensor|ndarray"),
]

# --- What runs while the site is built ------------------------------------------------
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "build/jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
sphinx_gallery_conf = {
    "examples_dirs": "../gallery",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "parallel": 2,  # other processes: torch must not have run in one that forks
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("dian",),  # the API pages show which pages use a module
    "reset_modules": ("dian_sphinx.figures.reset",),
    "image_scrapers": ("dian_sphinx.figures.scrape",),
    "image_srcset": ["2x"],
    "ignore_repr_types": r"matplotlib\.",
    "remove_config_comments": True,
    "download_all_examples": False,
    "write_computation_times": False,  # the built site is the same twice
    "min_reported_time": 10**6,
    "show_signature": False,
}
# It counts the folders above the repository, too, whose names are not ours to choose.
suppress_warnings = ["sphinx_gallery.space_in_filename"]

# --- The pages: nothing in them is loaded from elsewhere ----------------------------
html_theme = "sphinx_book_theme"
html_math_renderer = "katex"
nb_ipywidgets_js = {}
html_static_path = ["docs/_static"]
templates_path = ["docs/_templates"]
html_css_files = ["dian.css", "live/live.css"]
html_search_scorer = "docs/_static/search_order.js"
html_js_files = [
    ("editions.js", {"priority": 400}),  # before all that are translated with it
    "copy.js",
    "interactive.js",
    "previews.js",
]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sphinx = False
html_sidebars = {
    "**": ["site-logo.html", "search-button-field.html", "dian-sidebar-nav-bs.html"]
}
html_theme_options = {
    "extra_footer": f"<p>{project} {release}</p>",
    "article_header_end": ["edition-switch.html", "article-header-buttons.html"],
    "article_footer_items": ["page-links.html"],
    "navbar_persistent": [],
    "primary_sidebar_end": [],
    "use_download_button": False,
    "show_toc_level": 2,
}

# --- The Chinese edition: see docs/_ext/dian_sphinx/editions.py -----------------------
locale_dirs = ["../locale"]  # from docs/
gettext_compact = False  # a catalogue for each page
gettext_location = False  # or a new line would change all that follow
gettext_additional_targets = ["index"]

# --- The PDF edition ------------------------------------------------------------------
latex_engine = "xelatex"
latex_use_xindy = False
latex_additional_files = ["docs/_latex/dian.sty", "docs/_latex/zh_CN.ist"]
latex_documents = [
    ("index", "dian.tex", "Dian: an executable technical report", author, "manual")
]
pdf_file = os.environ.get("DIAN_PDF", "")  # offered for download, where there is one
latex_elements = {
    "papersize": "a4paper",
    "extraclassoptions": "openany,oneside",
    "fontpkg": "",
    "fncychap": "",
    "preamble": r"\usepackage{dian}",
    "printindex": r"\scriptsize\raggedright\printindex",  # names are long
}

# --- The repository, to which pages link: https://github.com/... ----------------------
repository = os.environ.get("DIAN_REPOSITORY", "").rstrip("/")
repository_branch = os.environ.get("DIAN_BRANCH", "main")
notebook_branch = os.environ.get("DIAN_NOTEBOOKS", "notebooks")

# --- Where it is hosted: with an address come a map of the site, what others show of a
# link to it, and a page for what is not there -----------------------------------------
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL") or os.environ.get(
    "DIAN_URL", ""
)
if html_baseurl:
    extensions += ["sphinx_sitemap", "sphinxext.opengraph", "notfound.extension"]
    sitemap_url_scheme = "{link}"
    sitemap_filename = "sitemap.xml"
    ogp_site_url = html_baseurl
    ogp_site_name = project
    ogp_social_cards = {"enable": False}
    notfound_urls_prefix = urlsplit(html_baseurl).path.rstrip("/") + "/"
