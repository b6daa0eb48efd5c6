import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from superres.arrays import RgbU8, to_integer
from superres.resample import degrade, degrade_part, scaled_size, upsample
from tests.prepared import prepared_set
from training import degrade as degrade_module
from training.cli import cli
from training.degrade import Degradations, load_degradations
from training.prepared import PreparedSet
from training.sampler import Prefetch, SamplerFailed, Sampling, batch

SHIPPED = Path(degrade_module.__file__).with_name("degradations.toml")
ALL_STEPS = load_degradations(SHIPPED)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, chelsea: RgbU8, coffee: RgbU8) -> PreparedSet:
    """Small enough that a crop often lies at an edge."""
    folder = tmp_path_factory.mktemp("photos")
    return prepared_set(folder, chelsea[:200, :260], coffee[:231, 100:330])


def sampling(**changes: Any) -> Sampling:
    options: dict[str, Any] = {
        "scale": 3,
        "domain": "lr",
        "halo": 4,
        "patch_size": 48,
        "batch_size": 6,
        "shrinks": ((1.0, 0.8, 0.5),),
    }
    return Sampling(**(options | changes))


def steps(*all_of_them: dict[str, Any], clean: float = 0.0) -> Degradations:
    return Degradations.model_validate({"clean": clean, "steps": all_of_them})


def views(picture: RgbU8) -> Iterator[tuple[int, bool, RgbU8]]:
    for mirrored in (False, True):
        for turns in range(4):
            yield turns, mirrored, np.rot90(picture[:, ::-1] if mirrored else picture, turns)


def places(whole: RgbU8, crop: RgbU8) -> list[tuple[int, int]]:
    """Where a picture is a crop, within a level."""
    height, width = (a - b + 1 for a, b in zip(whole.shape[:2], crop.shape[:2], strict=True))
    if min(height, width) < 1:
        return []
    alike = np.ones((height, width), bool)
    for y, x, c in np.random.default_rng(0).integers((*crop.shape[:2], 3), size=(25, 3)):
        seen = whole[y : y + height, x : x + width, c].astype(int)
        alike &= np.abs(seen - int(crop[y, x, c])) <= 1
    return [(int(top), int(left)) for top, left in np.argwhere(alike)]


@pytest.mark.parametrize(
    ("domain", "scale", "halo"), [("lr", 3, 4), ("lr", 2, 0), ("hr", 3, 5), ("hr", 4, 0)]
)
def test_crops_are_of_the_shrunk_picture_and_clean_planes_of_degrade(
    photos: PreparedSet, domain: Any, scale: int, halo: int
):
    """Planes with the picture's edge repeated beyond it, where the halo reaches over it."""
    shape = sampling(domain=domain, scale=scale, halo=halo, batch_size=16)
    planes, truths = (to_integer(one, np.uint8) for one in batch([photos], shape, 1, 2))
    upscale = scale if domain == "lr" else 1
    assert truths.shape == (16, 48, 48, 3)
    side = 48 // upscale + 2 * halo
    assert planes.shape == (16, side, side, 3)
    found_at, at_edge = set(), 0
    for plane, hr in zip(planes, truths, strict=True):
        found = False
        for number in range(len(photos)):
            for shrink in shape.shrinks[0]:
                whole = degrade(photos[number], scaled_size(photos[number].shape[:2], shrink))
                height, width = (side // scale * scale for side in whole.shape[:2])
                whole = whole[:height, :width]
                lr = degrade(whole, (height // scale, width // scale))
                seen = lr if domain == "lr" else upsample(lr, (height, width))
                padded = np.pad(seen, ((halo, halo), (halo, halo), (0, 0)), mode="edge")
                for (turns, mirrored, view), (_, _, plane_view) in zip(
                    views(whole), views(padded), strict=True
                ):
                    for top, left in places(view, hr):
                        y, x = top // upscale, left // upscale
                        expected = plane_view[y : y + side, x : x + side].astype(int)
                        if np.abs(expected - plane).max() > 1:
                            continue
                        assert (
                            np.abs(view[top : top + 48, left : left + 48] - hr.astype(int)).max()
                            <= 1
                        )
                        assert (top % upscale, left % upscale) == (0, 0)
                        found = True
                        found_at.add((number, shrink, turns, mirrored))
                        at_edge += min(top, left) == 0
        assert found
    assert {number for number, *_ in found_at} == {0, 1}
    assert {shrink for _, shrink, *_ in found_at} == {1.0, 0.8, 0.5}
    assert len({(turns, mirrored) for _, _, turns, mirrored in found_at}) >= 6
    if halo:
        assert at_edge >= 2


def test_a_part_of_a_shrunk_picture_is_within_a_level_of_the_whole(coffee: RgbU8):
    for factor in (0.9, 0.75, 0.6, 0.5, 0.25):
        size = scaled_size(coffee.shape[:2], factor)
        whole = degrade(coffee, size).astype(int)
        for rows, columns in (
            ((0, 50), (0, 40)),
            ((30, 77), (61, 99)),
            ((60, size[0]), (90, size[1])),
        ):
            part = degrade_part(coffee, size, rows, columns)
            assert np.abs(whole[slice(*rows), slice(*columns)] - part).max() <= 1


def test_a_batch_depends_on_its_arguments_alone(photos: PreparedSet):
    shape = sampling(degradations=ALL_STEPS, shuffle_channels=True)
    first = batch([photos], shape, 7, 3)
    others = [
        batch([photos], shape, 7, 4),
        batch([photos], shape, 8, 3),
        batch([photos], replace(shape, degradations=None), 7, 3),
        batch([photos], replace(shape, shrinks=((0.7,),)), 7, 3),
    ]
    np.random.default_rng().random()
    again = batch([PreparedSet.open(photos.folder)], shape, 7, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(not np.array_equal(first[0], other[0]) for other in others)
    assert all(one.dtype == np.uint8 for one in first)


def test_crops_at_edges_are_drawn_more_often_where_planes_have_a_halo(photos: PreparedSet):
    halo = 4
    shape = sampling(halo=halo, batch_size=150, patch_size=96, shrinks=((1.0,),))
    planes, _ = batch([photos], shape, 0, 0)
    core = slice(halo, -halo)
    at_edge = [
        any(
            (view[:halo, core] == view[halo, core]).all()
            for view in (np.rot90(plane, turns) for turns in range(4))
        )
        for plane in planes
    ]
    # A corner is in one of about 35 x 55 places, and 8 more a side are moved to the edge. Drawn
    # evenly, one crop in ten would be at an edge.
    assert 0.35 < np.mean(at_edge) < 0.8


def test_grids_of_blocks_begin_anywhere_in_a_crop(tmp_path: Path):
    random = np.random.default_rng(3)
    smooth = np.cumsum(random.normal(0, 3, (400, 400)), axis=1) + 128
    picture = np.repeat(np.clip(smooth, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    shape = sampling(
        halo=0,
        patch_size=144,
        batch_size=100,
        shrinks=((1.0,),),
        degradations=steps({"kind": "jpeg", "quality": (4, 4), "chroma_420": 0.0}),
    )
    planes, _ = batch([prepared_set(tmp_path, picture)], shape, 0, 0)
    phases = []
    for axis in (1, 2):
        jumps = np.abs(np.diff(planes.mean(axis=3), axis=axis)).mean(axis=3 - axis)
        by_phase = np.stack([jumps[:, phase::8].mean(axis=1) for phase in range(8)])
        phases.append(by_phase.argmax(axis=0))
    for found in phases:
        assert np.bincount(found, minlength=8).min() >= 2
    assert len(set(zip(*phases, strict=True))) > 30


def test_three_crops_in_ten_stay_clean_if_so_is_said(tmp_path: Path):
    flat = prepared_set(tmp_path, np.full((120, 120, 3), 90, np.uint8))
    noisy = steps({"kind": "noise", "sigma": (20, 20)}, clean=0.3)
    planes, truths = batch([flat], sampling(degradations=noisy, batch_size=300), 0, 0)
    clean = np.ptp(planes, axis=(1, 2, 3)) == 0
    assert 65 < clean.sum() < 115
    assert np.ptp(truths) == 0


def test_channels_change_places_in_plane_and_hr_alike_before_they_are_degraded(tmp_path: Path):
    colour = prepared_set(tmp_path, np.full((120, 120, 3), (200, 90, 20), np.uint8))
    # Luma decides how much grey noise there is: green has the most weight in it.
    noisy = steps({"kind": "shot_noise", "photons": (60, 60), "grey": 1.0})
    shape = sampling(shuffle_channels=True, degradations=noisy, batch_size=60)
    planes, truths = batch([colour], shape, 0, 0)
    hr = to_integer(truths, np.uint8)[:, 0, 0]
    assert len({tuple(one) for one in hr}) == 6
    means = planes.mean(axis=(1, 2))
    assert np.array_equal(np.argsort(means, axis=1), np.argsort(hr, axis=1))
    deviation = np.take_along_axis(planes.std(axis=(1, 2)), hr.argsort(axis=1)[:, 1:2], axis=1)[
        :, 0
    ]
    assert deviation[hr[:, 1] == 200].mean() > 1.2 * deviation[hr[:, 1] == 20].mean()


def test_a_picture_is_drawn_by_its_area_from_all_sets_and_shrunk_by_its_own_sets_factors(
    tmp_path: Path,
):
    def flat(side: int, level: int) -> RgbU8:
        return np.full((side, side, 3), level, np.uint8)

    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    sets = [
        prepared_set(tmp_path / "one", flat(100, 210), flat(40, 230)),
        prepared_set(tmp_path / "other", ramp),
    ]
    shape = sampling(shrinks=((1.0, 0.9), (0.5, 0.2)), batch_size=400, halo=0)
    _, truths = batch(sets, shape, 0, 0)
    levels = to_integer(truths, np.uint8)
    from_ramp = levels.max(axis=(1, 2, 3)) < 205
    # 100 x 100 against 200 x 200; the one of 40 is too small, and the ramp at 0.2 too.
    assert 290 < from_ramp.sum() < 350
    assert set(np.unique(levels[~from_ramp])) == {210}
    steepness = np.ptp(levels[from_ramp].astype(int), axis=(1, 2, 3))
    assert set(steepness) <= {93, 94, 95}  # 47 steps of 2


def test_a_patch_that_fits_no_picture_is_refused(photos: PreparedSet):
    with pytest.raises(SamplerFailed, match="no picture is large enough for a patch of 300 px"):
        batch([photos], sampling(patch_size=300), 0, 0)
    with pytest.raises(ValueError, match=r"a multiple of the scale \(3\), not 49"):
        sampling(patch_size=49)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]


def test_other_processes_make_the_same_batches_and_one_that_dies_is_noticed(photos: PreparedSet):
    shape = sampling(degradations=ALL_STEPS, shuffle_channels=True, batch_size=12)
    with Prefetch([photos], shape, seed=5, first_step=10, workers=2) as batches:
        for step in range(10, 15):
            for made, expected in zip(next(batches), batch([photos], shape, 5, step), strict=True):
                assert np.array_equal(made, expected)
        assert batches.waited > 0
        workers = workers_of(psutil.Process())
        assert len(workers) == 2
        workers[0].kill()
        with pytest.raises(SamplerFailed, match="ended with exit status -9"):
            all(batches)
    assert not any(worker.is_running() for worker in workers)


def test_an_error_in_another_process_is_told(photos: PreparedSet):
    with (
        Prefetch([photos], sampling(patch_size=300), seed=0) as batches,
        pytest.raises(SamplerFailed, match="no picture is large enough"),
    ):
        next(batches)


@pytest.mark.slow
def test_other_processes_end_when_the_one_that_trains_is_killed(
    photos: PreparedSet, tmp_path: Path
):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from training.prepared import PreparedSet\n"
        "from training.sampler import Prefetch, Sampling\n"
        "if __name__ == '__main__':\n"
        "    sampling = Sampling(3, 'lr', 0, 48, 2, ((1.0,),))\n"
        "    sets = [PreparedSet.open(Path(sys.argv[1]))]\n"
        "    with Prefetch(sets, sampling, seed=0) as batches:\n"
        "        next(batches)\n"
        "        print('begun', flush=True)\n"
        "        time.sleep(600)\n"
    )
    command = [sys.executable, str(script), str(photos.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "begun\n"
        workers = workers_of(psutil.Process(trainer.pid))
        assert len(workers) == 1
        os.kill(trainer.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(worker.is_running() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(worker.is_running() for worker in workers)


def test_the_command_draws_a_sheet_of_crops_beside_their_truth(photos: PreparedSet, tmp_path: Path):
    from PIL import Image

    command = ["sheet", str(SHIPPED), "--data", str(photos.folder), "--crops", "6"]
    result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "sheet.png")])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (2 * 152 - 8, 5 * 300 - 8, 3)
    enlarged, truth = sheet[:144, :144], sheet[:144, 148:292]
    # Nearest neighbour: blocks of 3x3.
    assert np.array_equal(enlarged, enlarged[1::3, 1::3].repeat(3, axis=0).repeat(3, axis=1))
    assert 0 < np.abs(enlarged.astype(int) - truth).mean() < 40
