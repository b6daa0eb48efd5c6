"""Parts of a job's result, by which a transfer that broke off is resumed."""

import hashlib
from base64 import b64decode
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.test_errors import assert_problem
from tests.integration.test_jobs import order, path, wait
from tests.pictures import encoded


@pytest.fixture(scope="module")
def result(fake_service: httpx.Client) -> Iterator[tuple[str, httpx.Response]]:
    """The path of a result, and the whole of it."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    job = order(fake_service, encoded(noise))
    wait(fake_service, job)
    yield path(job, "/result"), fake_service.get(path(job, "/result"))
    fake_service.delete(path(job))


def test_a_result_says_that_it_can_be_had_in_parts(fake_service, result):
    _, whole = result
    assert whole.headers["accept-ranges"] == "bytes"
    digest = b64decode(whole.headers["content-digest"].split(":")[1])
    assert digest == hashlib.sha256(whole.content).digest()
    assert whole.headers["etag"].strip('"') == whole.headers["content-digest"].split(":")[1]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=5000-", slice(5000, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=-99999999", slice(None)),
        ("bytes=20-99999999", slice(20, None)),
        ("BYTES = 1-2", slice(1, 3)),
    ],
)
def test_a_part_is_sent_with_its_place_and_the_digest_of_the_whole(
    fake_service, result, asked, part
):
    url, whole = result
    answer = fake_service.get(url, headers={"Range": asked, "If-Range": whole.headers["etag"]})
    assert answer.status_code == 206
    assert answer.content == whole.content[part]
    size = len(whole.content)
    first, end, _ = part.indices(size)
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
    assert answer.headers["repr-digest"] == whole.headers["content-digest"]
    assert "content-digest" not in answer.headers
    assert answer.headers["etag"] == whole.headers["etag"]
    assert answer.headers["x-model"] == whole.headers["x-model"]
    head = fake_service.head(url, headers={"Range": asked})
    assert (head.status_code, head.content) == (206, b"")
    assert head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-1,5-6"},
        {"Range": "bytes=0-1", "If-Range": '"another"'},
        {"Range": "bytes=0-1", "If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"Range": "lines=0-1"},
        {"Range": "bytes"},
        {"Range": "bytes=2-1"},
        {"Range": "bytes=a-b"},
        {"Range": "bytes=-0"},
        {"Range": "bytes=" + "9" * 5000 + "-"},
    ],
)
def test_else_the_whole_is_sent(fake_service, result, headers):
    url, whole = result
    answer = fake_service.get(url, headers=headers)
    assert answer.status_code == 200
    assert answer.content == whole.content


def test_a_part_beyond_the_end_is_refused_with_the_length(fake_service, result):
    url, whole = result
    size = len(whole.content)
    answer = fake_service.get(url, headers={"Range": f"bytes={size}-"})
    assert_problem(answer, 416, "range-not-satisfiable", f"has {size:,} bytes")
    assert answer.headers["content-range"] == f"bytes */{size}"


@settings(max_examples=40, deadline=None)
@given(
    st.from_regex(r"bytes=-?[0-9]{0,7}-?[0-9]{0,7}(,[0-9]{1,3}-)?", fullmatch=True)
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
)
def test_any_range_has_the_bytes_that_it_says(fake_service, result, asked):
    url, whole = result
    answer = fake_service.get(url, headers={"Range": asked})
    if answer.status_code == 206:
        place, _, size = answer.headers["content-range"].removeprefix("bytes ").partition("/")
        first, _, last = place.partition("-")
        assert int(size) == len(whole.content)
        assert answer.content == whole.content[int(first) : int(last) + 1] != b""
    elif answer.status_code == 200:
        assert answer.content == whole.content
    else:
        assert answer.status_code == 416
