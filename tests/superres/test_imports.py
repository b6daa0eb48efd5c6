"""What importing brings in; who may import whom is held by ``lint-imports`` in ``make check``."""

import subprocess
import sys


def test_importing_superres_brings_in_neither_fastapi_nor_tensorflow():
    script = (
        "import sys, superres, superres.evaluation.proof, superres.evaluation.strip;"
        "print([name for name in ('fastapi', 'tensorflow', 'keras') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_importing_and_decoding_leave_pillows_limit_to_the_host_process():
    script = """
import io
from PIL import Image
before = Image.MAX_IMAGE_PIXELS
from superres import Picture, decode, encode
from superres.codecs import FORMATS
assert before is not None and Image.MAX_IMAGE_PIXELS == before
for name in FORMATS.keys() - {"heif", "jxl"}:  # which Pillow does not write
    out = io.BytesIO()
    Image.new("RGB", (4, 3)).save(out, name)
    picture = decode(out.getvalue())
    encode(picture, "png")
    assert Image.MAX_IMAGE_PIXELS == before
"""
    subprocess.run([sys.executable, "-c", script], check=True)
