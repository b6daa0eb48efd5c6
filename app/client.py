"""The former name of :mod:`superres.client`, for one release."""

from warnings import warn

from superres.client import AsyncClient, Client, EncodedPicture, Enhanced, Fallback

__all__ = ["AsyncClient", "Client", "EncodedPicture", "Enhanced", "Fallback"]

warn("app.client is now superres.client", DeprecationWarning, stacklevel=2)
