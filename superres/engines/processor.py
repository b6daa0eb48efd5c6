"""What this machine has: instruction sets and packages."""

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
"""Flags of x86 processors that multiply in bfloat16, by Linux's names."""


@cache
def computes_in_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; False where Linux does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(BFLOAT16 & set(flags.split()))


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported for that."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None
