"""The pages: plain HTML, CSS and JavaScript; no build step."""

from pathlib import Path

COMPARE_PAGE = Path(__file__).with_name("compare.html")
"""A ``string.Template``: figures and pictures are put in by the route."""
