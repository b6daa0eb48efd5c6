"""Errors of the library, the client and the command, as one tree.

::

    SuperresError
    +-- BadImage              the bytes are not a picture that can be read
    |   +-- UnsupportedFormat   a format that is not read or written here
    |   +-- AnimatedImage       more than one frame
    |   +-- ImageTooLarge       over a limit on pixels
    +-- BadRequest            an argument outside what is allowed
    |   +-- BodyTooLarge        over the limit on bytes
    +-- AccessDenied          the caller may not do this
    |   +-- Unauthorized        without a key, or with one that is not known
    |   +-- Forbidden           with a key that is good for less
    +-- ModelError
    |   +-- ModelMissing        no such model or family in the models folder
    |   +-- ModelMismatch       a model that is not what its card says
    +-- EngineError           the device failed at work that it should manage
    +-- JobAbandoned          a job that could not be brought to an end
    +-- Unavailable           right, but not now: try again later
        +-- NotReady            the models are still being loaded, or the service is stopping
        +-- Busy                no room beside those at work
        +-- TooManyRequests     over the limit of the caller's own key
        +-- DeadlineExceeded    the deadline has passed

A message states the limit and the value received. No class knows a status code: ``app.errors``
gives each one, and those of ``app.service_errors``, which only the service raises.
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


class BodyTooLarge(BadRequest):
    """Over the limit on bytes."""


class AccessDenied(SuperresError):
    """The caller may not do this."""


class Unauthorized(AccessDenied):
    """Without a key, or with one that is not known."""


class Forbidden(AccessDenied):
    """With a key that is good for less."""


class ModelError(SuperresError):
    """A model cannot be served."""


class ModelMissing(ModelError):
    """No such model or family in the models folder."""


class ModelMismatch(ModelError):
    """A model that is not what its card says."""


class EngineError(SuperresError):
    """The device failed at work that it should manage."""


class JobAbandoned(SuperresError):
    """A job that could not be brought to an end, and is not tried again."""


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
    """The deadline has passed."""
