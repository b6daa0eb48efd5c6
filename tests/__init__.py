"""The tests; this is imported before any of them."""

import jaxtyping._decorator

# Else the first checked function imports JAX, to hide jaxtyping's frames from its tracebacks.
jaxtyping._decorator._tb_flag = False
