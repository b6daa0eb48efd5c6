"""Whose results make room for a new file."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.eviction import choose_evictions
from app.jobs.rows import Job, State
from app.service_errors import StorageError


def job(owner: str | None, nbytes: int, ended: float = 0, state: State = "done") -> Job:
    one = Job(
        owner=owner,
        request_id="",
        query={},
        output_format="png",
        tiles=1,
        deadline=None,
        upload_bytes=0 if state == "done" else nbytes,
        created=0,
        state=state,
        ended=ended,
    )
    one.result_bytes = nbytes if state == "done" else 0
    return one


def test_of_one_key_the_oldest_goes_first():
    jobs = [job(None, 10, ended) for ended in (3, 1, 2)]
    evicted = choose_evictions(jobs, None, 15, 30)
    assert [one.ended for one in evicted] == [1, 2]


def test_the_one_with_the_most_makes_room_even_if_his_results_are_the_newest():
    jobs = [job("alice", 10, 1), *(job("bob", 10, ended) for ended in range(2, 11))]
    evicted = choose_evictions(jobs, "alice", 15, 100)
    assert [(one.owner, one.ended) for one in evicted] == [("bob", 2), ("bob", 3)]


def test_uploads_that_wait_count_and_are_not_removed():
    jobs = [job("alice", 40), *(job("bob", 20, state="waiting") for _ in range(3))]
    with pytest.raises(StorageError, match="are other callers', within their share"):
        choose_evictions(jobs, "bob", 20, 100)


def test_one_within_his_share_makes_room_by_his_own_results_where_others_have_uploads_alone():
    jobs = [job("alice", 10, 1), job("alice", 10, 2), job("bob", 80, state="waiting")]
    evicted = choose_evictions(jobs, "alice", 15, 110)
    assert [(one.owner, one.ended) for one in evicted] == [("alice", 1)]


def test_one_over_his_share_loses_no_more_than_what_is_over_it():
    jobs = [job(owner, 20, ended) for ended in range(3) for owner in ("alice", "bob", "carol")]
    evicted = choose_evictions(jobs, "dave", 45, 180)
    assert sorted(one.owner for one in evicted) == ["alice", "bob", "carol"]


owners = st.sampled_from(["alice", "bob", "carol", None])
kept = st.lists(
    st.builds(
        job,
        owners,
        st.integers(0, 60),
        st.floats(0, 100),
        st.sampled_from(["done", "done", "done", "waiting"]),
    ),
    max_size=12,
)


@given(kept, owners, st.integers(0, 150), st.integers(1, 150))
def test_nobody_within_his_share_loses_anything_to_another(jobs, owner, nbytes, max_bytes):
    used = Counter({owner: nbytes})
    for one in jobs:
        used[one.owner] += one.upload_bytes + one.result_bytes
    share = max_bytes / len(used)
    try:
        evicted = choose_evictions(jobs, owner, nbytes, max_bytes)
    except StorageError:
        own = sum(one.result_bytes for one in jobs if one.owner == owner)
        assert used.total() - own > max_bytes  # his own results alone would not make room
        return
    assert all(one.state == "done" for one in evicted)
    assert used.total() - sum(one.result_bytes for one in evicted) <= max_bytes
    if used.total() <= max_bytes:
        assert not evicted
    for one in evicted:  # at each step
        assert one.owner == owner or used[one.owner] > share
        used[one.owner] -= one.result_bytes
