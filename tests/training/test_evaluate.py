"""The protocol reproduces the published bicubic rows, and the model beats them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.metrics import psnr
from superres.registry import DEFAULT_MODELS
from superres.resample import degrade, upsample
from training.cli import evaluate_command
from training.evaluate import evaluate

BICUBIC_X3_Y = {
    "Set5": (30.405, 0.8689),
    "Set14": (27.631, 0.7759),
    "BSD100": (27.209, 0.7391),
}
"""Measured once with Pillow on these very files."""
AT_LEAST = {"Set5": 32.3, "Set14": 28.9, "BSD100": 28.0}


@pytest.mark.parametrize(
    "dataset", ["Set5", "Set14", pytest.param("BSD100", marks=pytest.mark.slow)]
)
def test_the_published_tables(srcnn: Enhancer, benchmarks: Path, dataset: str):
    summary = evaluate(srcnn, benchmarks / dataset / "x3", 3).summarise()
    assert summary.dataset == dataset
    psnr, ssim = BICUBIC_X3_Y[dataset]
    assert summary.bicubic.psnr_y == pytest.approx(psnr, abs=0.01)
    assert summary.bicubic.ssim_y == pytest.approx(ssim, abs=0.001)
    assert summary.model.psnr_y >= AT_LEAST[dataset]
    assert summary.wins_psnr_y == summary.pictures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "scale", "dataset", "at_least"),
    [
        ("edsr-nano", 3, "Set5", 33.40),
        ("edsr-nano", 3, "Set14", 29.75),
        ("edsr-lite", 2, "Set5", 37.45),
        ("edsr-lite", 3, "Set5", 33.80),
        ("edsr-lite", 3, "Set14", 29.95),
        ("edsr-lite", 3, "BSD100", 28.85),
        ("edsr-lite", 4, "Set5", 31.60),
    ],
)
def test_edsr_scores_as_asked_and_wins_on_every_picture(
    benchmarks: Path, family: str, scale: int, dataset: str, at_least: float
):
    enhancer = load_model(family, scale=scale, device="cpu")
    summary = evaluate(enhancer, benchmarks / dataset / f"x{scale}", scale).summarise()
    assert round(summary.model.psnr_y, 2) >= at_least
    assert summary.wins_psnr_y == summary.pictures


def test_at_x2_the_family_picks_a_model_that_wins_there_too(benchmarks: Path):
    enhancer = load_model("srcnn", scale=2, device="cpu")
    summary = evaluate(enhancer, benchmarks / "Set5" / "x2", 2).summarise()
    assert summary.bicubic.psnr_y == pytest.approx(33.674, abs=0.01)
    assert summary.wins_psnr_y == summary.pictures


def test_pairs_and_whole_pictures_score_alike(srcnn: Enhancer, coffee: RgbU8, tmp_path: Path):
    hr = coffee[:90, :120]
    for name in ("pairs", "whole"):
        (tmp_path / name).mkdir()
    Image.fromarray(hr).save(tmp_path / "whole" / "1.png")
    Image.fromarray(hr).save(tmp_path / "pairs" / "1_hr.png")
    Image.fromarray(degrade(hr, (30, 40))).save(tmp_path / "pairs" / "1_lr.png")
    whole, pairs = (evaluate(srcnn, tmp_path / name, 3).pictures[0] for name in ("whole", "pairs"))
    assert (whole.model, whole.bicubic) == (pairs.model, pairs.bicubic)


def test_what_is_not_a_pair_is_named(srcnn: Enhancer, tmp_path: Path):
    for name, side in (("1_hr", 60), ("1_lr", 30), ("2_hr", 60)):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"1_lr.png is 30x30 and 1_hr.png 60x60: not a pair"):
        evaluate(srcnn, tmp_path, 3)
    (tmp_path / "1_hr.png").unlink()
    with pytest.raises(FileNotFoundError, match="has no 2_lr beside it"):
        evaluate(srcnn, tmp_path, 3)


def test_the_command_prints_json_per_picture_and_draws_a_report(coffee: RgbU8, tmp_path: Path):
    Image.fromarray(coffee[100:220, 200:320]).save(tmp_path / "1.png")
    run = subprocess.run(
        [
            Path(sys.executable).with_name("superres-train"),
            *("evaluate", "--model", DEFAULT_MODELS / "srcnn-x3", "--data", tmp_path, "--json"),
            *("--report", tmp_path / "report"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr
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
    srcnn: Enhancer, coffee: RgbU8, tmp_path: Path
):
    hr = coffee[:64, :80]
    Image.fromarray(hr).save(tmp_path / "1.png")
    (one,) = evaluate(srcnn, tmp_path, 3, protocol="upstream").pictures
    bicubic = upsample(degrade(hr, (21, 26)), (64, 80))
    assert one.bicubic.psnr_rgb == pytest.approx(psnr(hr, bicubic, data_range=255, shave=0))


def test_the_command_prints_upstreams_table(coffee: RgbU8, tmp_path: Path):
    Image.fromarray(coffee[100:220, 200:320]).save(tmp_path / "1.png")

    def evaluate_so(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                Path(sys.executable).with_name("superres-train"),
                *("evaluate", "--model", DEFAULT_MODELS / "srcnn-x3", "--data", tmp_path),
                *("--protocol", "upstream", *options),
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "150"},
        )

    run = evaluate_so()
    assert run.returncode == 0, run.stderr
    for row in ("bicubic", "srcnn-x3", "pictures won"):
        assert row in run.stdout
    assert "RGB: average (range)" in run.stdout
    refused = evaluate_so("--json")
    assert refused.returncode == 1
    assert "--protocol upstream prints a table and no more" in refused.stderr


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
