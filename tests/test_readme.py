"""What the README says is so."""

import re
import subprocess
from pathlib import Path

import pytest

from app.settings import Settings
from benchmarks.quality import CLAIMS, quality_page, with_claims
from superres.arrays import RgbU8
from superres.models.registry import DEFAULT_MODELS, read_cards
from superres.models.selection import automatic_families
from tests.documents import PAGES, REPOSITORY, at, photo_folder
from tests.needs import program
from tests.serving import link_models, serve_app, wait_until_ready

README = PAGES["README.md"]


@pytest.mark.slow
@pytest.mark.xdist_group("shipped model")
def test_the_first_call_of_the_readme_is_answered_as_shown(tmp_path: Path, chelsea: RgbU8):
    """With the models that `auto` chooses between at its scale; ... stands for anything."""
    curl, shown = re.search(r"^\$ (curl .*?)\n(.*?)^```", README, re.DOTALL | re.MULTILINE).groups()
    folder = photo_folder(tmp_path, chelsea)
    cards = read_cards(DEFAULT_MODELS)
    families = automatic_families(cards)
    names = [one.name for one in cards if one.family in families and one.geometry.scale == 2]
    models = link_models(tmp_path / "models", *names)
    settings = Settings(device="cpu", models=models, default_model="auto", jobs=tmp_path / "jobs")
    program("curl")
    with serve_app(settings, None) as client:
        wait_until_ready(client)
        run = subprocess.run(
            ["bash", "-c", at(client, curl)], cwd=folder, capture_output=True, text=True
        )
    answered = run.stdout.splitlines()
    for line in shown.splitlines():
        pattern = re.escape(line).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, one) for one in answered), (line, answered)


def test_the_scores_are_those_of_the_cards():
    cards = read_cards(DEFAULT_MODELS)
    assert all(card.scores for card in cards)
    assert (REPOSITORY / "docs" / "quality.md").read_text() == quality_page(cards)
    assert len(CLAIMS.findall(README)) == 1
    assert with_claims(README, cards) == README


def test_the_readme_is_one_screen_and_its_figures_are_in_the_pages_that_it_links():
    assert len(README.splitlines()) <= 150
    expectations = README.split("## What you can expect")[1].split("\n## ")[0]
    claim = re.compile(r"^- (?=\*\*)", flags=re.MULTILINE)
    assert len(claim.findall(expectations)) == 6
    by_hand = claim.split(CLAIMS.sub("", expectations))[1:]
    assert len(by_hand) == 4
    for claim in by_hand:
        (page,) = re.findall(r"\]\((docs/.*?\.md)\)", claim)
        text = PAGES[page]
        for figure in re.findall(r"\d[\d,.]*\d", claim.split("([")[0]):
            assert figure in text or figure in sums(page), (figure, page)


def sums(page: str) -> set[str]:
    """Figures that the README adds up from the tables of a page."""
    text = PAGES[page]
    if page == "docs/explanation/proof.md":
        rows = re.findall(r"^\| (\w+)(-jpeg75)? x[\d.]+ \|.*\| (\d+)/(\d+) \|$", text, re.MULTILINE)
        assert len(rows) == 12
        found = set()
        for compressed in ("", "-jpeg75"):
            of_kind = [row for row in rows if row[1] == compressed]
            found |= {str(sum(int(row[i]) for row in of_kind)) for i in (2, 3)}
        return found
    if page == "docs/hostile-files.md":
        table = text.split("`python -m tests.fuzz_by_coverage")[1].split("\n\n")[1]
        files = re.findall(r"^\| [A-Z]\w+(?: XL)? \| ([\d,]+) \| ([\d.]+) \|", table, re.MULTILINE)
        assert len(files) == 9
        total = sum(int(count.replace(",", "")) for count, _ in files)
        assert max(float(probe) for _, probe in files) == 53.9
        return {f"{total:,}"}
    return set()
