"""Errors that only the service raises: of HTTP, of jobs and of the administrator's requests.

::

    SuperresError
    +-- BadRequest
    |   +-- MalformedRequest    a request that cannot be parsed
    |   +-- BodyTooSlow         not there in time
    |   +-- NotAcceptable       no answer in a form that the caller accepts
    |   +-- RangeNotSatisfiable a part of a result that it does not have
    |   +-- UnknownHost         a Host that is not the service's
    |   +-- JobMissing          no such job, or not the caller's
    |   +-- KeyReused           an Idempotency-Key that another request had
    +-- AccessDenied
    |   +-- CrossOrigin         from a page of another site
    +-- ModelError
    |   +-- ReloadFailed        models that cannot replace those being served
    +-- CallerGone            nobody waits for the answer any more
    +-- Unavailable
        +-- JobUnfinished       a result that is not made yet
        +-- StorageError        nothing can be written: disk full, database locked

The rest of the tree is in :mod:`superres.errors`; :mod:`app.errors` gives each class its status.
"""

from superres.errors import AccessDenied, BadRequest, ModelError, SuperresError, Unavailable


class MalformedRequest(BadRequest):
    """A request that cannot be parsed."""


class BodyTooSlow(BadRequest):
    """A body that was not there in time."""


class NotAcceptable(BadRequest):
    """No answer in a form that the caller accepts."""


class RangeNotSatisfiable(BadRequest):
    """A part of a result that it does not have.

    Args:
        message: what was asked for.
        size: the bytes of the result.
    """

    def __init__(self, message: str, size: int = 0) -> None:
        super().__init__(message)
        self.size = size


class UnknownHost(BadRequest):
    """A Host header that is not a name of the service."""


class CrossOrigin(AccessDenied):
    """A request that a page of another site has a browser send."""


class JobMissing(BadRequest):
    """No such job, or it is somebody else's: which of the two is not told."""


class KeyReused(BadRequest):
    """An ``Idempotency-Key`` that the caller sent with another request before."""


class ReloadFailed(ModelError):
    """Models that cannot take over from those being served."""


class CallerGone(SuperresError):
    """Nobody waits for the answer any more."""


class JobUnfinished(Unavailable):
    """A result that is not made yet."""


class StorageError(Unavailable):
    """Nothing can be written now: the disk is full, or the database is locked."""
