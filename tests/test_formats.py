"""A picture format is one row of a table: all that names formats reads it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from superres.codecs import FORMATS, OUTPUT_FORMATS, OutputFormat

REPOSITORY = Path(__file__).parents[1]

FARBFELD = '''
"""farbfeld: 16 bits of RGBA, not compressed."""
import struct
import numpy as np
from superres.arrays import to_integer
from superres.picture import Header, Picture

def probe(file, max_pixels):
    width, height = struct.unpack(">8xII", file.read(16))
    return Header("farbfeld", (height, width), 16, True)

def decode(data, max_pixels):
    width, height = struct.unpack_from(">8xII", data)
    samples = np.frombuffer(data, ">u2", offset=16).reshape(height, width, 4)
    return Picture(samples.astype(np.uint16), source_format="farbfeld")

def encode(picture, quality):
    height, width = picture.size
    samples = to_integer(picture.samples, np.uint16)
    if picture.alpha is None:
        samples = np.dstack([samples, np.full((height, width), 65_535, np.uint16)])
    return b"farbfeld" + struct.pack(">II", width, height) + samples.astype(">u2").tobytes()
'''
BEFORE = """\
        Format(
            name="bmp",
"""
ROW = """\
        Format(
            name="farbfeld",
            label="farbfeld",
            magic=(b"farbfeld",),
            suffixes=(".ff",),
            media_type="image/x-farbfeld",
            probe=farbfeld.probe,
            decode=farbfeld.decode,
            encode=farbfeld.encode,
            shown_by_browsers=True,
        ),
"""
USES = """
import json, struct, sys
from pathlib import Path
import httpx
import superres.codecs
from superres.client import Client
from app.settings import Settings
from superres.models.registry import read_cards
from tests.commands import superres as command
from tests.engines import SharpenEngine
from tests.pictures import plain
from tests.serving import SPECIFICATION, link_models, serve_app, wait_until_ready

folder = Path(sys.argv[1])
assert Path(superres.codecs.__file__).is_relative_to(folder)
picture = b"farbfeld" + struct.pack(">II", 20, 10) + bytes(range(200)) * 8
inputs = folder / "inputs"
inputs.mkdir()
(inputs / "photo.ff").write_bytes(picture)
models = link_models(folder / "served", "srcnn-x2")
engines = {card.name: SharpenEngine(card.geometry) for card in read_cards(models)}
with serve_app(Settings(device="cpu", models=models), engines) as http:
    wait_until_ready(http)
    answer = Client(http=http).enhance(inputs / "photo.ff", 2)
    chosen = Client(http=http).enhance(plain(), 2, format="farbfeld")
    accepted = http.post(
        "/enhance?scale=2", content=plain(), headers={"Accept": "image/x-farbfeld"}
    )
    refused = http.post("/enhance?scale=2", content=picture, headers={"Accept": "text/plain"})
    told = {
        "page": http.get("/").text,
        "own format": [answer.media_type, answer.size, answer.content[:8].decode()],
        "client": chosen.media_type,
        "accept": accepted.headers["content-type"],
        "offered": refused.json()["detail"],
        "dry run": http.post("/enhance?dry_run=true", content=picture).json()["source_format"],
        "openapi": SPECIFICATION["paths"]["/enhance"]["post"],
        "not a picture": http.post("/enhance", content=b"hello").json()["detail"],
    }
for name, output, options in (
    ("folder", folder / "out", ()),
    ("file", folder / "larger.ff", ()),
    ("format", folder / "out", ("--format", "png")),
    ("wrong", folder / "larger.bmp", ()),
):
    source = inputs if name == "folder" else inputs / "photo.ff"
    run = command("enhance", source, "-o", output, "--dry-run", "--scale", "2", *options)
    told[name] = run.stdout + run.stderr
told["help"] = command("enhance", "--help").stdout
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the service and the command say, with a format added to the table."""
    folder = tmp_path_factory.mktemp("with-farbfeld")
    shutil.copytree(
        REPOSITORY / "superres", folder / "superres", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("app", "models", "tests"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "superres" / "codecs" / "farbfeld.py").write_text(FARBFELD)
    table = folder / "superres" / "codecs" / "table.py"
    text = table.read_text()
    for old, new in (
        ("import avif, gif_bmp", "import avif, farbfeld, gif_bmp"),
        ('"tiff"]', '"tiff", "farbfeld"]'),
        (BEFORE, ROW + BEFORE),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    table.write_text(text)
    run = subprocess.run(
        [sys.executable, "-c", USES, folder],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_a_format_added_to_the_table_is_on_the_page(told: dict):
    assert "image/tiff,image/x-farbfeld,image/bmp" in told["page"]
    assert "TIFF, farbfeld, BMP or still GIF. They are sent" in told["page"]
    assert "image/x-farbfeld&quot;: {&quot;name&quot;: &quot;farbfeld&quot;" in told["page"]
    assert "&quot;suffix&quot;: &quot;.ff&quot;" in told["page"]


def test_a_format_added_to_the_table_is_negotiated_and_in_the_openapi(told: dict):
    assert told["accept"] == "image/x-farbfeld"
    assert "image/x-farbfeld" in told["offered"]
    assert told["dry run"] == "farbfeld"
    assert "TIFF, FARBFELD, BMP" in told["not a picture"]
    assert "TIFF, farbfeld, BMP and still GIF are read" in told["openapi"]["description"]
    assert "image/x-farbfeld" in told["openapi"]["responses"]["200"]["content"]
    (parameter,) = (one for one in told["openapi"]["parameters"] if one["name"] == "format")
    assert "farbfeld" in json.dumps(parameter["schema"])


def test_a_format_added_to_the_table_is_sent_and_asked_for_by_the_client(told: dict):
    assert told["own format"] == ["image/x-farbfeld", [20, 40], "farbfeld"]
    assert told["client"] == "image/x-farbfeld"


def test_a_format_added_to_the_table_is_found_written_and_offered_by_the_command(told: dict):
    assert "inputs/photo.ff -> " in told["folder"]
    assert "/out/photo.ff (40x20)" in told["folder"]
    assert "/larger.ff (40x20)" in told["file"]
    assert "/out/photo.png (40x20)" in told["format"]
    assert "a result ends in .avif, .ff, .jpeg, .jpg, .jxl, .png" in told["wrong"]
    assert "farbfeld" in told["help"]


def test_the_type_of_output_formats_names_those_that_are_written():
    assert get_args(OutputFormat) == OUTPUT_FORMATS


def test_formats_can_be_told_apart_by_first_bytes_suffix_and_media_type():
    rows = list(FORMATS.values())
    suffixes = [suffix for row in rows for suffix in row.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert len({row.media_type for row in rows}) == len(rows)
    for row in rows:
        others = tuple(magic for other in rows if other is not row for magic in other.magic)
        assert not any(magic.startswith(others) for magic in row.magic)
