import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from superres.arrays import RgbU8
from superres.errors import BadImage
from superres.resample import degrade, upsample
from training.config import Degradation
from training.dataset import crops as random_crops
from training.dataset import make_pair, picture_files, read_pairs, whole_pictures


def test_a_pair_is_what_serving_would_see_and_what_it_should_say(chelsea: RgbU8):
    pair = make_pair(chelsea, scale=3, halo=7)
    hr = chelsea[:300, :450]
    assert np.array_equal(pair.hr, hr)
    bicubic = upsample(degrade(hr, (100, 150)), (300, 450))
    assert np.array_equal(pair.plane, np.pad(bicubic, ((7, 7), (7, 7), (0, 0)), mode="edge"))


def crops(pairs, **changes):
    options = {"patch_size": 32, "batch_size": 4, "upscale": 1, "seed": 1, "first_step": 0}
    return random_crops(pairs, **(options | changes))


def test_planes_and_truths_are_cropped_turned_and_flipped_together(chelsea: RgbU8):
    """Where bicubic is the truth, the plane without its halo is the truth."""
    pair = make_pair(chelsea, scale=3, halo=7)
    same = replace(pair, hr=pair.plane[7:-7, 7:-7])
    for planes, hr in itertools.islice(crops([same]), 5):
        assert planes.shape == (4, 46, 46, 3)
        assert np.array_equal(planes[:, 7:-7, 7:-7], hr)
        assert 0 <= hr.min() < hr.max() <= 1


def test_in_the_lr_domain_the_plane_is_the_small_picture_and_crops_stay_aligned(chelsea: RgbU8):
    """Where the truth is the small picture with its pixels repeated, so is every crop's."""
    pair = make_pair(chelsea, scale=3, halo=4, domain="lr")
    small = degrade(pair.hr, (100, 150))
    assert np.array_equal(pair.plane, np.pad(small, ((4, 4), (4, 4), (0, 0)), mode="edge"))
    assert np.array_equal(pair.bicubic(), make_pair(chelsea, scale=3, halo=7).bicubic())
    repeated = replace(pair, hr=small.repeat(3, axis=0).repeat(3, axis=1))
    for planes, hr in itertools.islice(crops([repeated], patch_size=48, upscale=3), 5):
        assert planes.shape == (4, 24, 24, 3)
        assert np.array_equal(planes[:, 4:-4, 4:-4].repeat(3, axis=1).repeat(3, axis=2), hr)
    with pytest.raises(ValueError, match=r"multiple of the upscale \(3\), not 32"):
        next(crops([pair], upscale=3))
    with pytest.raises(ValueError, match="keep_size is for networks of the hr domain"):
        make_pair(chelsea, scale=3, halo=4, domain="lr", keep_size=True)


def test_channels_change_places_together_and_in_every_order(chelsea: RgbU8):
    pair = make_pair(chelsea // np.array([1, 2, 4], np.uint8), scale=3, halo=7)
    same = replace(pair, hr=pair.plane[7:-7, 7:-7])
    orders = set()
    for planes, hr in itertools.islice(crops([same], shuffle_channels=True), 20):
        assert np.array_equal(planes[:, 7:-7, 7:-7], hr)
        orders |= {tuple(np.argsort(crop.mean((0, 1)))) for crop in hr}
    assert len(orders) == 6


def test_with_a_halo_crops_often_see_an_edge():
    """Of 300 rows a crop of 32 has the first one time in 269, were all its places alike."""
    hr = np.zeros((300, 300, 3), np.uint8)
    hr[0] = 255

    def share(halo: int) -> float:
        batches = itertools.islice(crops([make_pair(hr, scale=3, halo=halo)]), 500)
        return float(np.mean([crop.any() for _, batch in batches for crop in batch]))

    assert share(halo=0) < 2 / 269
    assert share(halo=7) > 7 / 269


def test_a_steps_batch_depends_on_the_seed_and_the_step_alone(chelsea: RgbU8):
    pairs = [make_pair(chelsea, scale=3, halo=7)]
    whole = list(itertools.islice(crops(pairs), 5))
    resumed = list(itertools.islice(crops(pairs, first_step=3), 2))
    for one, other in zip(whole[3:], resumed, strict=True):
        assert np.array_equal(one[0], other[0])
    assert not np.array_equal(next(crops(pairs, seed=2))[0], whole[0][0])


def test_pictures_are_learned_from_at_every_factor_unless_too_small(tmp_path, chelsea: RgbU8):
    Image.fromarray(chelsea[:100, :100]).save(tmp_path / "a.png")
    pairs = read_pairs([tmp_path], scale=3, halo=7, shrinks=(1.0, 0.8, 0.5), smallest=60)
    assert [pair.hr.shape for pair in pairs] == [(99, 99, 3), (78, 78, 3)]


def test_a_folder_without_pictures_and_a_file_that_is_none_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        picture_files([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        picture_files([tmp_path])
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(BadImage, match=r"a\.png: not a picture"):
        read_pairs([tmp_path], scale=3, halo=7, shrinks=(1.0,), smallest=9)


def test_whole_pictures_are_each_seen_once_an_epoch_in_a_new_order(chelsea: RgbU8):
    pairs = [make_pair(chelsea[:60, :60] // (i + 1), scale=3, halo=0) for i in range(6)]

    def epoch(first_step: int) -> list[int]:
        steps = itertools.islice(
            whole_pictures(pairs, batch_size=2, seed=1, first_step=first_step), 3
        )
        seen = [hr for _, batch in steps for hr in batch]
        return [
            next(i for i, p in enumerate(pairs) if np.allclose(p.hr / np.float32(255), hr))
            for hr in seen
        ]

    assert sorted(epoch(0)) == sorted(epoch(3)) == list(range(6))
    assert epoch(0) != epoch(3)
    assert epoch(0) == epoch(0)


def test_a_size_that_does_not_divide_can_be_kept(chelsea: RgbU8):
    pair = make_pair(chelsea[:100, :121], scale=3, halo=0, keep_size=True)
    assert pair.plane.shape == pair.hr.shape == (100, 121, 3)


@pytest.mark.parametrize(
    ("mild", "severe"),
    [
        ({"jpeg": (50, 95)}, {"jpeg": (1, 1)}),
        ({"noise": (1, 4)}, {"noise": (30, 30)}),
        ({"blur": (0.3, 0.8)}, {"blur": (3, 3)}),
    ],
)
def test_a_degradation_is_of_the_small_picture_alone_and_the_same_at_every_call(
    tmp_path, coffee: RgbU8, mild: dict, severe: dict
):
    Image.fromarray(coffee[:96, :96]).save(tmp_path / "one.png")
    read = partial(read_pairs, [tmp_path], scale=3, halo=0, shrinks=(1.0, 0.8), smallest=24)
    clean = read()
    degraded, again, worse = (read(degradation=Degradation(**how)) for how in (mild, mild, severe))
    for one, other, same, worst in zip(clean, degraded, again, worse, strict=True):
        assert np.array_equal(one.hr, other.hr)
        assert np.array_equal(other.plane, same.plane)
        difference = np.abs(one.plane.astype(int) - other.plane).mean()
        assert 0.3 < difference < np.abs(one.plane.astype(int) - worst.plane).mean() / 2
