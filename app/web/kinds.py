"""The kinds of pictures that the page offers, each with the family of models that suits it."""

from superres.models.selection import (
    CLEAN_FAMILY,
    COMPRESSED_FAMILY,
    PHOTO_FAMILY,
    SHARPENED_FAMILY,
)

KINDS = {
    "clean": CLEAN_FAMILY,
    "compressed": COMPRESSED_FAMILY,
    "sharpened": SHARPENED_FAMILY,
    "noisy": PHOTO_FAMILY,
    "fast": "edsr-nano",
}
"""In the order of the page. ``static/kinds`` has a crop of each, ``static/languages`` its words."""
