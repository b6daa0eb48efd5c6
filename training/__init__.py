"""Training: from photographs to ``models/<name>/``. Keras 3, backend-neutral but for export."""

import os

# As for serving (superres.engines.tensorflow); here, before whichever module imports Keras first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
