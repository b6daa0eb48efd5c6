import numpy as np
import pytest

from superres.arrays import RgbU8
from superres.evaluation.metrics import psnr
from superres.resample import degrade, upsample
from tests.prepared import prepared_set
from training.prepared import PreparedSet
from training.validation import HELD_OUT, held_out_pairs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, coffee: RgbU8) -> PreparedSet:
    """The same 13 times, so that only the degradations differ."""
    return prepared_set(tmp_path_factory.mktemp("val"), *[coffee[100:261, 200:380]] * 13)


def test_clean_pairs_are_the_picture_cropped_shrunk_and_extended(pictures):
    hr = pictures[0][:159]
    for domain in ("lr", "hr"):
        pair = held_out_pairs(pictures, scale=3, halo=5, domain=domain, degraded=False)[0]
        lr = degrade(hr, (53, 60))
        plane = lr if domain == "lr" else upsample(lr, (159, 180))
        assert np.array_equal(pair.hr, hr)
        assert np.array_equal(pair.plane, np.pad(plane, ((5, 5), (5, 5), (0, 0)), mode="edge"))
        assert np.array_equal(pair.bicubic(), upsample(lr, (159, 180)))


def test_pictures_go_through_the_twelve_degradations_in_turn_and_the_same_every_time(pictures):
    assert len(HELD_OUT) == 12
    clean, first, again = (
        held_out_pairs(pictures, scale=3, halo=0, domain="lr", degraded=degraded)
        for degraded in (False, True, True)
    )
    assert all(np.array_equal(a.plane, b.plane) for a, b in zip(first, again, strict=True))
    # The first has nothing to draw, so the thirteenth picture comes out as the first did.
    assert np.array_equal(first[0].plane, first[12].plane)
    assert len({pair.plane.tobytes() for pair in first}) == 12
    losses = [
        psnr(a.plane, b.plane, data_range=255, shave=0) for a, b in zip(first, clean, strict=True)
    ]
    assert all(15 < loss < 45 for loss in losses), dict(zip(HELD_OUT, losses, strict=False))


def test_what_is_drawn_for_a_picture_differs_from_picture_to_picture(tmp_path, coffee):
    """Of the noise, so that it is not one pattern."""
    noisy = list(HELD_OUT).index("noise 5, jpeg 80")
    grey = np.full_like(coffee[:60, :60], 128)
    twice = prepared_set(tmp_path, *[grey] * (noisy + 13))
    pairs = held_out_pairs(twice, scale=3, halo=0, domain="lr", degraded=True)
    assert not np.array_equal(pairs[noisy].plane, pairs[noisy + 12].plane)
