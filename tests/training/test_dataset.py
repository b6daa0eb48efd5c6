import itertools
from pathlib import Path

import numpy as np
import pytest

from superres.arrays import RgbU8
from superres.errors import BadImage
from superres.resample import degrade, upsample
from training.dataset import make_pair, picture_files, read_rgb, whole_pictures


def test_a_pair_is_what_serving_would_see_and_what_it_should_say(chelsea: RgbU8):
    pair = make_pair(chelsea, scale=3, halo=7)
    hr = chelsea[:300, :450]
    assert np.array_equal(pair.hr, hr)
    bicubic = upsample(degrade(hr, (100, 150)), (300, 450))
    assert np.array_equal(pair.plane, np.pad(bicubic, ((7, 7), (7, 7), (0, 0)), mode="edge"))


def test_in_the_lr_domain_the_plane_is_the_small_picture(chelsea: RgbU8):
    pair = make_pair(chelsea, scale=3, halo=4, domain="lr")
    small = degrade(pair.hr, (100, 150))
    assert np.array_equal(pair.plane, np.pad(small, ((4, 4), (4, 4), (0, 0)), mode="edge"))
    assert np.array_equal(pair.bicubic(), make_pair(chelsea, scale=3, halo=7).bicubic())
    with pytest.raises(ValueError, match="keep_size is for networks of the hr domain"):
        make_pair(chelsea, scale=3, halo=4, domain="lr", keep_size=True)


def test_a_folder_without_pictures_and_a_file_that_is_none_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        picture_files([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        picture_files([tmp_path])
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(BadImage, match=r"a\.png: not a picture"):
        read_rgb(tmp_path / "a.png")


def test_whole_pictures_are_each_seen_once_an_epoch_in_a_new_order(chelsea: RgbU8):
    pairs = [make_pair(chelsea[:60, :60] // (i + 1), scale=3, halo=0) for i in range(6)]

    def epoch(first_step: int) -> list[int]:
        steps = itertools.islice(
            whole_pictures(pairs, batch_size=2, seed=1, first_step=first_step), 3
        )
        seen = [hr for _, batch in steps for hr in batch]
        return [next(i for i, p in enumerate(pairs) if np.array_equal(p.hr, hr)) for hr in seen]

    assert sorted(epoch(0)) == sorted(epoch(3)) == list(range(6))
    assert epoch(0) != epoch(3)
    assert epoch(0) == epoch(0)


def test_a_size_that_does_not_divide_can_be_kept(chelsea: RgbU8):
    pair = make_pair(chelsea[:100, :121], scale=3, halo=0, keep_size=True)
    assert pair.plane.shape == pair.hr.shape == (100, 121, 3)
