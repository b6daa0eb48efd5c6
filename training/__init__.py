"""Training, from photographs to ``models/<name>/``, in Keras 3.

TensorFlow and JAX both work as the backend; only export needs TensorFlow.
"""

import os

# The same setting as for serving (superres.engines.tensorflow), set before Keras is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
