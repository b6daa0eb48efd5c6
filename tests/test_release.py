"""The version is the same in all places that name it."""

import re
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def test_the_changelog_and_the_citation_name_the_version_with_one_date():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## \[?([^\]\n]+?)\]?(?: - (\S+))?$", changelog, flags=re.MULTILINE)
    assert releases[0] == ("Unreleased", "")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert releases[1] == (VERSION, citation["date-released"])
    assert citation["version"] == VERSION


def test_the_changelog_groups_changes_as_keep_a_changelog_has_them():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    groups = set(re.findall(r"^### (.*)$", changelog, flags=re.MULTILINE))
    assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    released = changelog.partition(f"## {VERSION} - ")[2]
    assert re.match(r"\S+\n\n### ", released)
