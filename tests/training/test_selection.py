"""Fitting the thresholds of model=auto, and scoring what it chooses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.automatic import AutomaticEnhancer
from superres.codecs import decode
from superres.models import automatic_scores
from superres.models.automatic_scores import all_scores, read_automatic_scores
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODELS, all_cards
from superres.models.selection import RULES_FILE, Candidates, candidates, read_rules, select
from superres.resample import degrade
from tests.subjects import CLEAN
from training.cli import cli
from training.evaluate import evaluate
from training.kinds import FITTED_KINDS, KINDS
from training.selection import Example, StoredScores, examples, fit, fit_scale, write_rules


@pytest.fixture
def between() -> Candidates:
    return candidates(all_cards(DEFAULT_MODELS), 3)


def example(between: Candidates, best: str, **changes: float | str) -> Example:
    """A file on which one candidate, such as ``clean`` or ``bicubic``, is a decibel better."""
    psnr = {card.name: 30.0 for card in between.cards}
    psnr[getattr(between, best).name] += 1
    return Example("1.png", "", replace(CLEAN, **changes), psnr)


@pytest.mark.slow
def test_the_thresholds_that_are_found_choose_the_best_model(between: Candidates):
    data = [example(between, "clean")]
    data += [example(between, "clean", jpeg_quality=q) for q in (88, 92, 97)]
    data += [example(between, "compressed", jpeg_quality=q) for q in (30, 60, 80)]
    data += [example(between, "photo", jpeg_quality=80, sharpness=0.8)]
    data += [example(between, "sharpened", jpeg_quality=80, sharpness=2.2)]
    data += [example(between, "compressed", blockiness=b) for b in (0.3, 0.8)]
    data += [example(between, "photo", noise=n) for n in (4, 9)]
    data += [example(between, "clean", noise=4, detail=60)]
    data += [example(between, "photo", colour_noise=n) for n in (5, 9)]
    data += [example(between, "clean", colour_noise=2)]
    data += [example(between, "clean", jpeg_quality=85, detail=60)]
    data += [example(between, "compressed", coded_as="AVIF", bits_per_pixel=b) for b in (0.2, 1)]
    data += [example(between, "clean", coded_as="AVIF", bits_per_pixel=b) for b in (4, 20)]
    data += [example(between, "photo", sharpness=0.6)]
    data += [example(between, "sharpened", sharpness=2.8)]
    data += [example(between, "bicubic", jpeg_quality=50, detail=d) for d in (1, 4)]
    data += [example(between, "compressed", jpeg_quality=50, detail=d) for d in (6, 9)]
    rules = fit(data, between)
    assert all(one.regret(select(one.evidence, between, rules).card.name) == 0 for one in data)
    assert 12 < rules.light * 4 <= 20  # the root of the detail of CLEAN, plus 1, is 4
    assert 4 < rules.detail <= 6


@pytest.mark.slow
def test_a_file_counts_as_much_as_its_kind_in_the_fit(between: Candidates):
    data = [example(between, "compressed", jpeg_quality=75, sharpness=2.5)]
    data += 2 * [example(between, "sharpened", jpeg_quality=75, sharpness=2.5)]
    for weight, better in ((1.0, between.sharpened), (0.2, between.compressed)):
        rules = fit([data[0], *(replace(one, weight=weight) for one in data[1:])], between)
        assert select(data[0].evidence, between, rules).card == better


def unneeded() -> Enhancer:
    raise RuntimeError("the model was loaded")


def test_a_score_is_computed_once_for_each_model(coffee: RgbU8, tmp_path: Path):
    Image.fromarray(coffee[100:220, 200:320]).save(tmp_path / "1.png")
    bicubic = load_model("bicubic")
    kinds = ["clean", "sharpen, jpeg 92"]
    for label in ("one@1", "one@2"):
        stored = StoredScores(tmp_path / "scores.json")
        first = list(examples(tmp_path, 3, kinds, {label: lambda: bicubic}, stored))
        again = StoredScores(tmp_path / "scores.json")
        broken = {label: unneeded}
        assert list(examples(tmp_path, 3, kinds, broken, again)) == first
        with pytest.raises(RuntimeError, match="was loaded"):
            list(examples(tmp_path, 3, ["noise 5"], broken, again))
    assert [one.evidence.jpeg_quality for one in first] == [None, pytest.approx(92, abs=0.5)]
    assert first[0].psnr["one"] > first[1].psnr["one"]
    assert [one.weight for one in first] == [1, FITTED_KINDS["sharpen, jpeg 92"].weight]


@pytest.mark.parametrize("kind", FITTED_KINDS)
def test_each_kind_makes_the_same_file_again_and_each_picture_another(coffee: RgbU8, kind: str):
    lr = degrade(coffee, (66, 100))
    file = FITTED_KINDS[kind].make(lr, 1)
    assert file == FITTED_KINDS[kind].make(lr, 1)
    assert decode(file).rgb.shape == lr.shape
    assert np.abs(decode(file).rgb.astype(int) - lr).mean() < 12
    if "noise" in kind:
        assert file != FITTED_KINDS[kind].make(lr, 2)


def test_writing_the_rules_of_a_scale_leaves_the_others(tmp_path: Path):
    file = tmp_path / "selection.toml"
    file.write_text(RULES_FILE.read_text())
    rules = read_rules()[3].model_copy(update={"detail": 1.25})
    write_rules(file, {3: (rules, "One line.\nAnother.")})
    write_rules(file, {2: (rules, "Of x2.")})
    text = file.read_text()
    assert "# One line.\n# Another.\n[scale.3]\n" in text
    assert "# Of x2.\n[scale.2]\n" in text
    assert text.count("detail = 1.25\n") == 2
    before = RULES_FILE.read_text().split("[scale.4]")[1]
    assert text.split("[scale.4]")[1] == before


@pytest.mark.parametrize("name", ["Set5/x3", "Set14/x3", "BSD100/x3", "photos512/test"])
def test_nothing_is_fitted_on_what_is_for_scores(tmp_path: Path, name: str):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="is only for scores: fit on photos512/val"):
        fit_scale(tmp_path / name, 3, DEFAULT_MODELS, StoredScores(tmp_path / "scores.json"))


def test_auto_is_scored_by_its_choice_for_each_file(
    between: Candidates, coffee: RgbU8, tmp_path: Path
):
    Image.fromarray(coffee[100:280, 200:380]).save(tmp_path / "1.png")
    loaded: list[str] = []

    def load(card: ModelCard):
        loaded.append(card.name)
        return load_model("bicubic")

    enhancer = AutomaticEnhancer(between, load)
    clean = evaluate(enhancer, tmp_path, 3)
    assert loaded == [between.clean.name]
    evaluate(enhancer, tmp_path, 3, lr_jpeg=40)
    assert between.compressed is not None
    assert loaded == [between.clean.name, between.compressed.name]
    chat = evaluate(enhancer, tmp_path, 3, kind=("blur 0.8, jpeg 60", KINDS["blur 0.8, jpeg 60"]))
    assert chat.dataset == f"{clean.dataset}-blur-0.8-jpeg-60"
    assert chat.pictures[0].gain_db == clean.pictures[0].gain_db == 0


def test_the_scores_of_auto_are_kept_until_a_model_or_a_threshold_changes(
    between: Candidates, coffee: RgbU8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Image.fromarray(coffee[100:220, 200:320]).save(tmp_path / "1.png")
    file = tmp_path / "scores.json"
    file.write_text("{}")
    monkeypatch.setattr(automatic_scores, "SCORES_FILE", file)
    monkeypatch.setattr("superres.load_model", lambda *_, **__: load_model("bicubic"))
    # Nothing that is stored is perfect, as bicubic against itself is not.
    command = ["evaluate", "--model", "auto", "--write-card", "--data", str(tmp_path)]
    run = CliRunner().invoke(cli, command)
    assert run.exit_code == 0, run.output
    cards = all_cards(DEFAULT_MODELS)
    rows = [row for row in all_scores(cards) if row.name == "auto"]
    assert [row.scores.dataset for row in rows] == [tmp_path.name, f"{tmp_path.name}-jpeg75"]
    assert all(row.scores.model == row.scores.bicubic for row in rows)
    other = between.clean.model_copy(update={"files": {"saved_model.pb": "0" * 64}})
    assert not automatic_scores.read_automatic_scores().of(replace(between, clean=other))
    cards = [other if card.name == other.name else card for card in cards]
    assert "auto" not in {row.name for row in all_scores(cards)}


def test_the_shipped_scores_of_auto_are_of_the_shipped_models():
    """If not: superres-train evaluate --model auto --degraded --write-card, at each scale."""
    for scale in (2, 3, 4):
        scores = read_automatic_scores().of(candidates(all_cards(DEFAULT_MODELS), scale))
        assert {"Set5", "Set5-jpeg75", "Set5-jpeg-30", "Set14"} <= {one.dataset for one in scores}


def test_the_command_prints_clean_and_degraded_rows(coffee: RgbU8, tmp_path: Path, monkeypatch):
    Image.fromarray(coffee[100:220, 200:320]).save(tmp_path / "1.png")
    monkeypatch.setattr("superres.load_model", lambda *_, **__: load_model("bicubic"))
    arguments = ["evaluate", "--model", "auto", "--data", str(tmp_path)]
    monkeypatch.setenv("COLUMNS", "200")
    run = CliRunner().invoke(cli, [*arguments, "--degraded"])
    assert run.exit_code == 0, run.output
    for row in ("-jpeg75 ", "-jpeg-30 ", "-noise-5 ", "-chat-sharpen-jpeg-60-to-75-twice "):
        assert row in run.stdout
    scores = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert [one["mean"]["model"]["psnr_y"] for one in scores] == [
        one["mean"]["bicubic"]["psnr_y"] for one in scores
    ]
