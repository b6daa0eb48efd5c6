"""`superres enhance --cluster`: folders and buckets, on a Ray cluster of several nodes."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from superres import load_model
from superres.arrays import RgbU8
from superres.codecs import decode, encode
from tests.clusters import add_node, ray_cluster
from tests.pictures import encoded
from tests.storage import s3_bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SUPERRES = Path(sys.executable).with_name("superres")
OPTIONS = ("--cluster", "--recursive", "--precision", "float32", "--device", "cpu")


@pytest.fixture(scope="module")
def bucket() -> Iterator[UPath]:
    with s3_bucket("photographs") as bucket:
        yield bucket


@pytest.fixture(scope="module")
def cluster(bucket: UPath):
    with ray_cluster() as cluster:
        add_node(cluster)
        add_node(cluster)
        yield cluster


def enhance(cluster, source: object, output: object, *options: str) -> subprocess.CompletedProcess:
    command = [SUPERRES, "enhance", str(source), "-o", str(output), *OPTIONS, *options]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        return subprocess.run(command, capture_output=True, text=True)


def test_a_bucket_is_enlarged_into_a_bucket_and_resumed(cluster, bucket: UPath, coffee: RgbU8):
    pictures = {
        "one.png": encoded(coffee[:90, :120]),
        "sub/two.jpg": encoded(coffee[90:200, :120], "JPEG"),
        "sub/deep/three.webp": encoded(coffee[200:, :100], "WEBP"),
    }
    for name, content in pictures.items():
        (bucket / "in" / name).write_bytes(content)
    (bucket / "in" / "broken.png").write_bytes(b"hello")
    run = enhance(cluster, bucket / "in", bucket / "out")
    assert run.returncode == 1
    assert "1 of 4 failed:" in run.stderr
    assert "s3://photographs/in/broken.png: " in run.stderr
    assert "s3://photographs/in/one.png -> s3://photographs/out/one.png (360x270)" in run.stderr
    enhancer = load_model("srcnn", scale=3, precision="float32", device="cpu")
    for name, content in pictures.items():
        kind = {".png": "png", ".jpg": "jpeg", ".webp": "webp"}[Path(name).suffix]
        expected = encode(enhancer.enhance(decode(content), 3), kind)
        assert (bucket / "out" / name).read_bytes() == expected

    again = enhance(cluster, bucket / "in", bucket / "out")
    assert "4 of 4 failed:" in again.stderr
    assert again.stderr.count("is there already: use --force") == 3
    (bucket / "in" / "broken.png").write_bytes(pictures["one.png"])
    resumed = enhance(cluster, bucket / "in", bucket / "out", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "│ done already │        3 │" in resumed.stderr
    assert "│ made         │        1 │" in resumed.stderr


def test_a_model_that_cannot_be_loaded_is_one_line(cluster, bucket: UPath, coffee: RgbU8):
    (bucket / "one" / "one.png").write_bytes(encoded(coffee[:90, :120]))
    run = enhance(cluster, bucket / "one", bucket / "other", "--device", "gpu:7")
    assert run.returncode == 1
    assert "error: the cluster cannot go on: " in run.stderr
    assert "sees 0 GPUs" in run.stderr


def test_of_500_pictures_none_is_lost_or_made_twice_when_a_node_dies(
    cluster, tmp_path: Path, chelsea: RgbU8
):
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(500):
        file = folder / f"{i % 7}" / f"{i:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(np.roll(chelsea[:64, :96], i, axis=1)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        running = subprocess.Popen(
            [SUPERRES, "enhance", folder, "-o", out, *OPTIONS],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    results = lambda: {f for f in out.rglob("[!.]*.png") if f.is_file()}  # noqa: E731
    while len(results()) < 250 and running.poll() is None:
        time.sleep(0.05)
    before = {file: file.stat().st_ino for file in results()}
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert 250 <= len(before) < 500
    assert len(results()) == 500
    assert {file: file.stat().st_ino for file in before} == before
    told = re.findall(rf"^{folder}/(\S+) -> ", said, flags=re.MULTILINE)
    assert len(told) == len(set(told)) == 500
    enhancer = load_model("srcnn", scale=3, precision="float32", device="cpu")
    for file in results():
        source = (folder / file.relative_to(out)).read_bytes()
        assert file.read_bytes() == encode(enhancer.enhance(decode(source), 3), "png"), file
