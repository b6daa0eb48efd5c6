"""Parts that a clone has beside the library."""

import sys
from pathlib import Path

import pytest

from superres import clone
from superres.errors import BadRequest


def installed_beside(folder: Path, *files: str) -> None:
    """Other projects' files where the library is installed."""
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError('another project')")


@pytest.mark.parametrize("files", [[], ["app/commands.py"], ["pyproject.toml", "app/other.py"]])
def test_where_there_is_no_clone_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]
):
    installed_beside(tmp_path, *files)
    monkeypatch.setattr(clone, "_ROOT", tmp_path)
    assert not clone.has("app.commands")
    with pytest.raises(BadRequest, match=r"^superres serve needs a clone .*`make install`"):
        clone.part("app.commands", "superres serve")


def test_in_a_clone_both_are_found():
    assert clone.has("app.commands")
    assert clone.has("training.cli")


def test_superres_train_without_training_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clone, "_ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["superres-train", "fit"])
    with pytest.raises(SystemExit, match=r"^error: superres-train needs a clone of the project"):
        clone.train()
