"""Everything that can go wrong, as one tree.

::

    SuperresError
    +-- BadImage              the bytes are not a picture that can be read
    |   +-- UnsupportedFormat   a format that is not read or written here
    |   +-- AnimatedImage       more than one frame
    |   +-- ImageTooLarge       over a limit on pixels
    +-- BadRequest            an argument outside what is allowed
    |   +-- MalformedRequest    a request that cannot be parsed
    |   +-- BodyTooLarge        over the limit on bytes
    |   +-- BodyTooSlow         not there in time
    |   +-- NotAcceptable       no answer in a form that the caller accepts
    |   +-- RangeNotSatisfiable a part of a result that it does not have
    |   +-- UnknownHost         a Host that is not the service's
    |   +-- JobMissing          no such job, or not the caller's
    +-- AccessDenied          the caller may not do this
    |   +-- Unauthorized        without a key, or with one that is not known
    |   +-- Forbidden           with a key that is good for less
    |   +-- CrossOrigin         from a page of another site
    +-- ModelError
    |   +-- ModelMissing        no such model or family in the models folder
    |   +-- ModelMismatch       a model that is not what its card says
    |   +-- ReloadFailed        models that cannot take over from those being served
    +-- EngineError           the device failed at work that it should manage
    +-- JobAbandoned          a job that could not be brought to an end
    +-- CallerGone            nobody waits for the answer any more
    +-- Unavailable           right, but not now: try again later
        +-- NotReady            the models are still being loaded, or the service is stopping
        +-- Busy                no room beside those at work
        +-- TooManyRequests     over the limit of the caller's own key
        +-- DeadlineExceeded    the caller's time is up
        +-- JobUnfinished       a result that is not made yet
        +-- StorageError        nothing can be written: disk full, database locked

A message states the limit and the value received. The core knows no status codes:
``app.errors`` gives each class one.
"""


class SuperresError(Exception):
    """The root: catching it catches everything that this package raises on purpose."""


class BadImage(SuperresError):
    """The bytes are not a picture that can be read."""


class UnsupportedFormat(BadImage):
    """A format that is not read or written here."""


class AnimatedImage(BadImage):
    """More than one frame: which one to enhance is not ours to guess."""


class ImageTooLarge(BadImage):
    """Over a limit on input pixels or output pixels."""


class BadRequest(SuperresError):
    """An argument outside what is allowed."""


class MalformedRequest(BadRequest):
    """A request that cannot be parsed."""


class BodyTooLarge(BadRequest):
    """Over the limit on bytes."""


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


class JobMissing(BadRequest):
    """No such job, or it is somebody else's: which of the two is not told."""


class AccessDenied(SuperresError):
    """The caller may not do this."""


class Unauthorized(AccessDenied):
    """Without a key, or with one that is not known."""


class Forbidden(AccessDenied):
    """With a key that is good for less."""


class CrossOrigin(AccessDenied):
    """A request that a page of another site has a browser send."""


class ModelError(SuperresError):
    """A model cannot be served."""


class ModelMissing(ModelError):
    """No such model or family in the models folder."""


class ModelMismatch(ModelError):
    """A model that is not what its card says."""


class ReloadFailed(ModelError):
    """Models that cannot take over from those being served."""


class EngineError(SuperresError):
    """The device failed at work that it should manage."""


class JobAbandoned(SuperresError):
    """A job that could not be brought to an end, and is not tried again."""


class CallerGone(SuperresError):
    """Nobody waits for the answer any more."""


class Unavailable(SuperresError):
    """The request is right, but cannot be served now.

    ``retry_after`` is when to try again, in whole seconds from now.
    """

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(Unavailable):
    """The models are still being loaded and checked, or the service is stopping."""


class Busy(Unavailable):
    """No room beside the requests that are being worked on."""


class TooManyRequests(Unavailable):
    """Over the limit of the caller's own key."""


class DeadlineExceeded(Unavailable):
    """The caller's time is up."""


class JobUnfinished(Unavailable):
    """A result that is not made yet."""


class StorageError(Unavailable):
    """Nothing can be written now: the disk is full, or the database is locked."""
