"""Training: from photographs to ``models/<name>/``. Keras 3, backend-neutral but for export."""
