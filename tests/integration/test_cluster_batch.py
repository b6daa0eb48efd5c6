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

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.codecs import decode, encode
from tests.lazy import Lazy
from tests.pictures import encoded
from tests.soak import slow, soak
from tests.storage import s3_bucket

clusters = Lazy("tests.clusters")

pytestmark = pytest.mark.xdist_group("cluster")

SUPERRES = Path(sys.executable).with_name("superres")
OPTIONS = (
    *("--cluster", "--recursive", "--precision", "float32", "--device", "cpu"),
    "--no-provenance",  # so that the library makes the same
)


@pytest.fixture(scope="module")
def bucket() -> Iterator[UPath]:
    with s3_bucket("photographs") as bucket:
        yield bucket


@pytest.fixture
def node(cluster, bucket: UPath) -> Iterator[object]:
    """The cluster's only one, to which the bucket is known."""
    yield clusters.add_node(cluster)
    clusters.remove_nodes(cluster)


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    return load_model("srcnn", scale=3, precision="float32", device="cpu")


def enhance(cluster, source: object, output: object, *options: str) -> subprocess.CompletedProcess:
    command = [SUPERRES, "enhance", str(source), "-o", str(output), *OPTIONS, *options]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_bucket_is_enlarged_into_a_bucket_and_resumed(
    cluster, node, bucket: UPath, enhancer: Enhancer, coffee: RgbU8
):
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
    for name, content in pictures.items():
        kind = {".png": "png", ".jpg": "jpeg", ".webp": "webp"}[Path(name).suffix]
        expected = encode(enhancer.enhance(decode(content), 3), kind)
        assert (bucket / "out" / name).read_bytes() == expected

    (bucket / "in" / "broken.png").unlink()
    again = enhance(cluster, bucket / "in", bucket / "out")
    assert "3 of 3 failed:" in again.stderr
    assert again.stderr.count("is there already: use --force") == 3
    (bucket / "in" / "four.png").write_bytes(pictures["one.png"])
    resumed = enhance(cluster, bucket / "in", bucket / "out", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "│ done already │        3 │" in resumed.stderr
    assert "│ made         │        1 │" in resumed.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_model_that_cannot_be_loaded_is_one_line(cluster, node, bucket: UPath, coffee: RgbU8):
    (bucket / "one" / "one.png").write_bytes(encoded(coffee[:90, :120]))
    run = enhance(cluster, bucket / "one", bucket / "other", "--device", "gpu:7")
    assert run.returncode == 1
    assert "error: the cluster cannot go on: " in run.stderr
    assert "device 'gpu:7' was" in run.stderr


@pytest.mark.parametrize("pictures", [slow(120), soak(500)])
def test_no_picture_is_lost_or_made_twice_when_a_node_dies(
    cluster, node, tmp_path: Path, enhancer: Enhancer, chelsea: RgbU8, pictures: int
):
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(pictures):
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

    def made() -> set[Path]:
        return {file for file in out.rglob("[!.]*.png") if file.is_file()}

    def wait_for(count: int) -> None:
        while len(made()) < count and running.poll() is None:
            time.sleep(0.05)

    wait_for(1)
    clusters.add_node(cluster)
    wait_for(pictures // 3)
    before = {file: file.stat().st_ino for file in made()}
    cluster.remove_node(node, allow_graceful=False)
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert pictures // 3 <= len(before) < pictures
    assert len(made()) == pictures
    assert {file: file.stat().st_ino for file in before} == before
    told = re.findall(rf"^{folder}/(\S+) -> ", said, flags=re.MULTILINE)
    assert len(told) == len(set(told)) == pictures
    for file in made():
        source = (folder / file.relative_to(out)).read_bytes()
        assert file.read_bytes() == encode(enhancer.enhance(decode(source), 3), "png"), file
