"""What the service costs beside the bare network: a ratio in one run, never seconds."""

import pytest

from superres.models.registry import DEFAULT_MODELS, choose, read_cards
from tests.lazy import Lazy
from tests.needs import package

speed = Lazy("benchmarks.speed")

LARGEST_RATIO = 1.6
"""On a quiet machine it is under 1.2: see benchmarks/results.md."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_jpeg_of_4_megapixels_costs_little_more_than_the_bare_network():
    package("matplotlib")  # of the benchmarks, which are not for every runtime
    bare = speed.Bare(choose(read_cards(DEFAULT_MODELS), "srcnn", speed.SCALE))
    with speed.served(bare) as http:
        service = speed.Asked(http, "jpeg", 4, callers=2, calls=2)
        pairs = [(service(), bare()) for _ in range(4)]
    # What else the machine does only adds to either: the least of each is nearest to the truth.
    ours, floor = (min(times) for times in zip(*pairs, strict=True))
    assert ours <= LARGEST_RATIO * floor, pairs
