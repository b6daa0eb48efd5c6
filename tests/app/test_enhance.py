"""The options of POST /enhance, as a job keeps them."""

from app.inference.enhance import EnhanceOptions


def test_a_job_that_was_stored_with_the_old_name_of_bicubic_is_done_by_that_model():
    stored = {"scale": 2, "model": "srcnn", "fallback": "always"}
    assert EnhanceOptions.from_mapping(stored) == EnhanceOptions(scale=2, model="bicubic")


def test_a_job_that_an_earlier_release_stored_keeps_its_options():
    """Rows of earlier releases have keys that are no options; a row may lack options, too."""
    stored = {"scale": 2, "fallback": "auto", "dry_run": False}
    assert EnhanceOptions.from_mapping(stored) == EnhanceOptions(scale=2, fallback="auto")
