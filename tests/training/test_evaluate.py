"""The protocol reproduces the published bicubic rows, and the model beats them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.evaluation.metrics import psnr
from superres.models.card import read_card
from superres.models.registry import DEFAULT_MODELS, read_cards
from superres.resample import degrade, upsample
from training.cli import cli, evaluate_command
from training.evaluate import evaluate

BICUBIC_Y = {
    ("Set5", 2): (33.674, 0.9303),
    ("Set5", 3): (30.405, 0.8689),
    ("Set14", 3): (27.631, 0.7759),
    ("BSD100", 3): (27.209, 0.7391),
    ("Set5", 4): (28.430, 0.8111),
}
"""Measured once with Pillow on these very files."""
AT_LEAST = {
    ("srcnn-x3", "Set5"): 32.3,
    ("srcnn-x3", "Set14"): 28.9,
    ("srcnn-x3", "BSD100"): 28.0,
    ("edsr-nano-x3", "Set5"): 33.40,
    ("edsr-nano-x3", "Set14"): 29.75,
    ("edsr-lite-x2", "Set5"): 37.65,
    ("edsr-lite-x3", "Set5"): 33.85,
    ("edsr-lite-x3", "Set14"): 30.00,
    ("edsr-lite-x3", "BSD100"): 28.90,
    ("edsr-lite-x4", "Set5"): 31.60,
}
"""What was asked of a model, dB of luma; its card, which is held to it, may say more."""
LOSSES = {("edsr-lite-x3", "Set14"): 1}
"""Clean pictures on which bicubic is better: here the striped cloth of Barbara, by 0.11 dB."""
NAMES = [card.name for card in read_cards(DEFAULT_MODELS)]
LEARNED_JPEG = ("jpeg-x3", "photo-x3")
"""Those that may lose to bicubic on pictures that never were JPEG."""
slow, soak = pytest.mark.slow, pytest.mark.soak


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    """srcnn-x3, in float32."""
    return load_model("srcnn-x3", precision="float32", device="cpu")


def published(
    name: str, dataset: str, *marks: pytest.MarkDecorator, precision: str = "float32"
) -> object:
    return pytest.param(name, dataset, precision, marks=marks, id=f"{name}-{dataset}-{precision}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "dataset", "precision"),
    [
        published("srcnn-x3", "Set5"),
        *(published(name, "Set5", slow) for name in NAMES if name != "srcnn-x3"),
        *(published(name, "Set5-jpeg75", slow) for name in NAMES if name.endswith(LEARNED_JPEG)),
        published("srcnn-x3", "Set5", slow, precision="bfloat16"),
        published("srcnn-x3", "Set14", slow),
        published("srcnn-x3", "BSD100", slow),
        published("edsr-lite-x3", "Set14", slow),
        published("edsr-nano-x3", "Set14", slow),
        published("edsr-lite-x3", "BSD100", soak),
        published("edsr-nano-x3", "BSD100", soak),
    ],
)
def test_the_published_tables(benchmarks: Path, name: str, dataset: str, precision: str):
    """Each card's row is what its model scores, and no less than was asked of it."""
    model = load_model(name, precision=precision, device="cpu")
    card = read_card(DEFAULT_MODELS / name)
    scale = card.geometry.scale
    pictures = benchmarks / dataset.removesuffix("-jpeg75") / f"x{scale}"
    lr_jpeg = 75 if dataset.endswith("-jpeg75") else None
    summary = evaluate(model, pictures, scale, lr_jpeg=lr_jpeg).summarise()
    (row,) = (one for one in card.scores if one.dataset == dataset)
    assert (row.scale, row.pictures) == (scale, summary.pictures)
    for ours, theirs in ((summary.model, row.model), (summary.bicubic, row.bicubic)):
        for channel in ("y", "rgb"):
            for figure, tolerance in ((f"psnr_{channel}", 0.01), (f"ssim_{channel}", 0.0005)):
                expected = getattr(theirs, figure)
                assert getattr(ours, figure) == pytest.approx(expected, abs=tolerance), figure
    assert summary.wins_psnr_y == row.wins_psnr_y
    if (dataset, scale) in BICUBIC_Y:
        psnr, ssim = BICUBIC_Y[dataset, scale]
        assert summary.bicubic.psnr_y == pytest.approx(psnr, abs=0.01)
        assert summary.bicubic.ssim_y == pytest.approx(ssim, abs=0.001)
    if (name, dataset) in AT_LEAST:
        assert round(summary.model.psnr_y, 2) >= AT_LEAST[name, dataset]
    if lr_jpeg is None and not name.endswith(LEARNED_JPEG):
        assert summary.wins_psnr_y == summary.pictures - LOSSES.get((name, dataset), 0)


def test_pairs_and_whole_pictures_score_alike(enhancer: Enhancer, coffee: RgbU8, tmp_path: Path):
    hr = coffee[:90, :120]
    for name in ("pairs", "whole"):
        (tmp_path / name).mkdir()
    Image.fromarray(hr).save(tmp_path / "whole" / "1.png")
    Image.fromarray(hr).save(tmp_path / "pairs" / "1_hr.png")
    Image.fromarray(degrade(hr, (30, 40))).save(tmp_path / "pairs" / "1_lr.png")
    whole, pairs = (
        evaluate(enhancer, tmp_path / name, 3).pictures[0] for name in ("whole", "pairs")
    )
    assert (whole.model, whole.bicubic) == (pairs.model, pairs.bicubic)


def test_what_is_not_a_pair_is_named(enhancer: Enhancer, tmp_path: Path):
    for name, side in (("1_hr", 60), ("1_lr", 30), ("2_hr", 60)):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"1_lr.png is 30x30 and 1_hr.png 60x60: not a pair"):
        evaluate(enhancer, tmp_path, 3)
    (tmp_path / "1_hr.png").unlink()
    with pytest.raises(FileNotFoundError, match="has no 2_lr beside it"):
        evaluate(enhancer, tmp_path, 3)


def test_the_command_prints_json_per_picture_and_draws_a_report(coffee: RgbU8, tmp_path: Path):
    Image.fromarray(coffee[100:220, 200:320]).save(tmp_path / "1.png")
    arguments = ["evaluate", "--model", DEFAULT_MODELS / "srcnn-x3", "--data", tmp_path, "--json"]
    run = CliRunner().invoke(cli, [*map(str, arguments), "--report", str(tmp_path / "report")])
    assert run.exit_code == 0, run.output
    report = json.loads(run.stdout)
    assert report[0]["pictures"][0]["file"] == "1.png"
    clean, jpeg = report
    assert clean["mean"]["model"]["psnr_y"] > clean["mean"]["bicubic"]["psnr_y"]
    assert jpeg["dataset"] == f"{clean['dataset']}-jpeg75"
    assert jpeg["mean"]["bicubic"]["psnr_y"] < clean["mean"]["bicubic"]["psnr_y"]
    strips = sorted(file.name for file in (tmp_path / "report").glob("*.png"))
    assert strips == sorted(
        ["gains.png", f"{clean['dataset']}-best-1.png", f"{jpeg['dataset']}-best-1.png"]
    )
    rows = (tmp_path / "report" / "scores.csv").read_text().splitlines()
    assert rows[0] == "dataset,scale,file,method,psnr_y,ssim_y,psnr_rgb,ssim_rgb"
    assert len(rows) == 1 + 4


def test_the_upstream_protocol_keeps_the_size_and_shaves_nothing(
    enhancer: Enhancer, coffee: RgbU8, tmp_path: Path
):
    hr = coffee[:64, :80]
    Image.fromarray(hr).save(tmp_path / "1.png")
    (one,) = evaluate(enhancer, tmp_path, 3, protocol="upstream").pictures
    bicubic = upsample(degrade(hr, (21, 26)), (64, 80))
    assert one.bicubic.psnr_rgb == pytest.approx(psnr(hr, bicubic, data_range=255, shave=0))


def test_the_command_prints_upstreams_table(coffee: RgbU8, tmp_path: Path, monkeypatch):
    Image.fromarray(coffee[100:220, 200:320]).save(tmp_path / "1.png")
    monkeypatch.setenv("COLUMNS", "150")
    arguments = ["evaluate", "--model", DEFAULT_MODELS / "srcnn-x3", "--data", tmp_path]
    run = CliRunner().invoke(cli, [*map(str, arguments), "--protocol", "upstream"])
    assert run.exit_code == 0, run.output
    for row in ("bicubic", "srcnn-x3", "pictures won"):
        assert row in run.stdout
    assert "RGB: average (range)" in run.stdout


def test_as_a_process_the_command_says_in_a_line_what_it_refuses(tmp_path: Path):
    command = Path(sys.executable).with_name("superres-train")
    arguments = ["evaluate", "--model", tmp_path, "--data", tmp_path, "--protocol", "upstream"]
    refused = subprocess.run([command, *arguments, "--json"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: --protocol upstream only prints a table")
    assert "Traceback" not in refused.stderr


def test_means_that_no_card_can_hold_are_refused(tmp_path: Path):
    """Of a picture of one colour, both methods make the picture itself."""
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (60, 60), "grey").save(tmp_path / "flat" / "1.png")
    model = tmp_path / "srcnn-x3"
    shutil.copytree(DEFAULT_MODELS / model.name, model)
    before = (model / "card.json").read_bytes()
    with pytest.raises(ValueError, match="a card keeps finite means, and in flat"):
        evaluate_command(model, [tmp_path / "flat"], write_card=True)
    assert (model / "card.json").read_bytes() == before
