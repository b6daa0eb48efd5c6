"""Front ends: the HTTP service and the ``superres`` command."""
