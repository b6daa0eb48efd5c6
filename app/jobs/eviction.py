"""Which results make room for a new file: fairly by key, and of one key the oldest first."""

from collections import Counter, deque
from collections.abc import Sequence

from app.jobs.rows import Job
from app.service_errors import StorageError


def choose_evictions(
    jobs: Sequence[Job], owner: str | None, nbytes: int, max_bytes: int
) -> list[Job]:
    """Choose the results to remove before a file is stored.

    All owners have the same share of the bytes. A result is removed only if its owner has more
    than that, or is the one who stores the file; so nobody loses a result to another one's jobs
    as long as he keeps within his share.

    Args:
        jobs: all jobs that are kept.
        owner: of the new file.
        nbytes: of the new file.
        max_bytes: most bytes of all files.

    Raises:
        StorageError: there is no room.
    """
    used = Counter({owner: nbytes})
    results: dict[str | None, deque[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.ended or 0):
        used[job.owner] += job.upload_bytes + job.result_bytes
        if job.state == "done":
            results.setdefault(job.owner, deque()).append(job)
    excess = used.total() - max_bytes
    share = max_bytes / len(used)
    evicted: list[Job] = []
    while excess > 0:
        losers = [one for one in results if results[one] and (one == owner or used[one] > share)]
        if not losers:
            others = ", and the results are other callers', within their share"
            raise StorageError(
                f"at most {max_bytes:,} bytes of uploads and results are kept; with this one's "
                f"{nbytes:,} there would be {max_bytes + excess:,}"
                f"{others if any(results.values()) else ''}",
                retry_after=30,
            )
        loser = max(losers, key=lambda one: used[one])
        job = results[loser].popleft()
        evicted.append(job)
        used[loser] -= job.result_bytes
        excess -= job.result_bytes
    return evicted
