"""The ``superres`` command, as a user types it."""

import re
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from superres.arrays import RgbU8
from tests import commands

pytestmark = pytest.mark.xdist_group("shipped model")
superres = partial(commands.superres, SUPERRES_DEVICE="cpu", SUPERRES_PRECISION="float32")


@pytest.fixture
def photo(tmp_path: Path, chelsea: RgbU8) -> Path:
    file = tmp_path / "cat.jpg"
    Image.fromarray(chelsea[:100, :150]).save(file, quality=95)
    return file


def test_a_photograph_comes_back_three_times_as_large(photo: Path, tmp_path: Path):
    run = superres("enhance", photo, "-o", tmp_path / "cat.png")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "cat.png") as image:
        assert (image.format, image.size) == ("PNG", (450, 300))


def test_a_bad_file_does_not_stop_the_rest_and_is_listed_at_the_end(photo: Path, tmp_path: Path):
    (tmp_path / "notes.png").write_text("hello")
    (tmp_path / "huge.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    run = superres("enhance", tmp_path, "-o", out, "--scale", "1.5", "--format", "webp")
    assert run.returncode == 1
    assert [file.name for file in out.glob("[!.]*")] == ["cat.webp"]
    with Image.open(out / "cat.webp") as image:
        assert image.size == (225, 150)
    assert "2 of 3 failed" in run.stderr
    assert "notes.png: not a picture in a format that is read here" in run.stderr
    assert "huge.png: the picture's header is damaged" in run.stderr


def test_nothing_is_overwritten_without_leave_and_an_input_never(photo: Path, tmp_path: Path):
    before = photo.read_bytes()
    over_itself = superres("enhance", photo, "-o", tmp_path, "--force")
    assert over_itself.returncode == 1
    assert "an input is never overwritten" in over_itself.stderr
    assert photo.read_bytes() == before
    target = tmp_path / "out.png"
    target.write_bytes(b"precious")
    assert "use --force" in superres("enhance", photo, "-o", target).stderr
    assert target.read_bytes() == b"precious"
    assert superres("enhance", photo, "-o", target, "--force").returncode == 0


def test_two_pictures_of_one_name_do_not_overwrite_each_other(photo: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / photo.name
    twin.write_bytes(photo.read_bytes())
    run = superres("enhance", photo, twin, "-o", tmp_path / "out")
    assert run.returncode == 1
    assert "is already the result of" in run.stderr


def test_colours_that_nobody_sees_change_no_comparison(tmp_path: Path, coffee: RgbU8):
    tables = []
    for hidden in (0, 255):
        samples = np.dstack([coffee[:60, :90], np.full((60, 90), 255, np.uint8)])
        samples[:, 40:] = hidden, hidden, hidden, 0
        Image.fromarray(samples).save(tmp_path / "cut.png")
        tables.append(superres("compare", tmp_path / "cut.png", "--model", "bicubic").stdout)
    assert tables[0] == tables[1] != ""


def test_compare_tabulates_both_methods_and_draws_the_strip(tmp_path: Path, coffee: RgbU8):
    picture = tmp_path / "coffee.png"
    Image.fromarray(coffee).save(picture)
    run = superres("compare", picture, "-o", tmp_path / "strip.png")
    assert run.returncode == 0, run.stderr
    rows = [line for line in run.stdout.splitlines() if "bicubic" in line or "srcnn" in line]
    psnr = [float(row.split("│")[2]) for row in rows[:2]]
    assert psnr[1] > psnr[0] > 20
    gain = float(run.stdout.split("gain over bicubic: ")[1].split(" dB")[0])
    assert gain == pytest.approx(psnr[1] - psnr[0], abs=0.011)
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width > 3 * 400


@pytest.mark.slow
def test_an_ensemble_is_a_better_one_and_another_recipe(photo: Path, tmp_path: Path):
    out = tmp_path / "out"
    runs = [
        superres("enhance", photo, "-o", out, "--resume", "--force", *options)
        for options in ([], ["--ensemble"], ["--ensemble"])
    ]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [f"cat.jpg -> {out}" in run.stdout + run.stderr for run in runs] == [True, True, False]
    astronaut = Path(__file__).parents[2] / "app" / "web" / "photographs" / "astronaut.jpg"
    gains = [
        float(re.search(r"over bicubic: (\S+) dB", run.stdout)[1])
        for run in (
            superres("compare", astronaut, "--model", "edsr-nano", *options)
            for options in ([], ["--ensemble"])
        )
    ]
    assert gains[1] > gains[0]


def test_models_lists_the_shipped_model():
    run = superres("models")
    assert run.returncode == 0
    assert "srcnn-x3" in run.stdout
    assert "36,483" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--scale", "5"], 1, "scale is 1 to 4, not 5"),
        (["--model", "magic"], 1, "no model or family 'magic': there are bicubic, edsr-lite"),
        (["--precision", "float8"], 2, "'float8' is not one of 'auto', 'float32', 'bfloat16'"),
        (["--device", "gpu:7"], 1, "device 'gpu:7' was asked for; "),
        (["--models", "/nowhere"], 1, "no models in /nowhere"),
        (["--format", "gif"], 2, "'gif' is not one of 'png', 'jpeg', 'webp', 'avif', 'jxl',"),
    ],
)
def test_a_mistake_is_one_clear_line(photo: Path, tmp_path: Path, arguments, status, says):
    run = superres("enhance", photo, "-o", tmp_path / "out", *arguments)
    assert run.returncode == status
    assert says in run.stderr
    assert not (tmp_path / "out").exists()


def test_the_installed_command_ends_with_one_line_and_a_status():
    """What ends with 0 is the first command of the documents, in tests/test_docs.py."""
    run = subprocess.run(
        [commands.INSTALLED, "models", "--models", "/nowhere"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "error: no models in /nowhere: a model is a folder with a card.json\n"


def test_a_setting_that_is_none_is_one_line_which_does_not_repeat_it():
    run = superres("serve", SUPERRES_DRAIN_S="a-secret")
    assert run.returncode == 1
    assert run.stderr.startswith("error: SUPERRES_DRAIN_S: Input should be a valid")
    assert "a-secret" not in run.stderr


def test_a_missing_file_is_listed(tmp_path: Path, photo: Path):
    run = superres("enhance", tmp_path / "none.png", photo, "-o", tmp_path / "out")
    assert run.returncode == 1
    assert "1 of 2 failed" in run.stderr
    assert np.asarray(Image.open(tmp_path / "out" / "cat.jpg")).shape == (300, 450, 3)


def test_a_proof_is_told_beside_each_picture(photo: Path, tmp_path: Path):
    out, asked = tmp_path / "out", ["--model", "srcnn", "--proof", "--icc", "srgb"]
    run = superres("enhance", photo, "-o", out, *asked, "--metadata", "strip")
    assert run.returncode == 0, run.stderr
    assert re.search(r"cat\.jpg \(450x300\): \+\d\.\d\d dB over bicubic, by the proof", run.stderr)
    assert b"algorithmicallyEnhanced" not in (out / "cat.jpg").read_bytes()
    refused = superres("enhance", photo, "-o", tmp_path / "x", "--scale", "1.2", "--proof")
    assert "a proof needs a scale of 1.5 to 4, not 1.2" in refused.stderr


@pytest.mark.slow
def test_each_picture_gets_the_model_of_its_scale(photo: Path, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for width in (100, 160, 600):
        Image.open(photo).resize((width, 60)).save(folder / f"{width}.png")
    run = superres("enhance", folder, "-o", tmp_path / "out", "--width", "300", "--model", "srcnn")
    assert run.returncode == 0, run.stderr
    agents = {
        file.name: re.findall(rb"superres (srcnn-x\d)@", file.read_bytes())
        for file in (tmp_path / "out").glob("*.png")
    }
    assert agents == {"100.png": [b"srcnn-x3"], "160.png": [b"srcnn-x2"], "600.png": []}
    assert "600.png (300x30): bicubic, only shrunk, by bicubic" in run.stderr
