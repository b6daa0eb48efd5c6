"""Batches: names, dates, resuming, kills."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from upath import UPath

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.automatic import SizedEnhancer
from superres.batch.ledger import Ledger, Options, SharedLedger
from superres.batch.plan import plan
from superres.batch.runner import BatchRunner, Outcome
from superres.codecs import Picture, decode, encode
from superres.errors import BadRequest
from superres.models.bicubic import BICUBIC
from superres.models.card import Geometry, ModelCard, Tiling
from superres.parameters import Parameters
from superres.paths import write_whole
from tests.commands import INSTALLED, superres
from tests.engines import BlurEngine
from tests.pictures import animated, encoded, plain
from tests.superres.test_folders import nobody

GEOMETRY = Geometry(domain="hr", scale=2, halo=3, largest_tile=64)
OPTIONS = Options("blur@0", Parameters(scale=2))


class Watched(BlurEngine):
    """Remembers how many threads were in it at most."""

    def __init__(self) -> None:
        super().__init__(GEOMETRY)
        self.inside = self.most = self.calls = 0
        self.lock = threading.Lock()

    def predict(self, tiles):
        with self.lock:
            self.inside += 1
            self.calls += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.001)
        try:
            return super().predict(tiles)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.fixture
def photos(tmp_path: Path, chelsea: RgbU8) -> Path:
    """Two levels of folders, several formats, and a thing that is hidden."""
    folder = tmp_path / "photos"
    for i, name in enumerate(("a.JPG", "b.jpeg", "sub/a.png", "sub/deep/c.bmp", "sub/.hidden.png")):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(chelsea[:40, :60], i, axis=1)).save(file)
        os.utime(file, (1_000_000_000 + i, 1_000_000_000 + i))
    return folder


def enhance(folder: Path, out: Path, **flags) -> list[Outcome]:
    """With a blur in the model's place."""
    options = flags.pop("options", OPTIONS)
    enhancer = Enhancer(flags.pop("engine", BlurEngine(GEOMETRY)), GEOMETRY)
    jobs = plan([folder], out, flags.pop("output_format", None), recursive=True).jobs
    flags = {"resume": False, "force": False} | flags
    batch = BatchRunner(
        None if flags.pop("dry_run", False) else enhancer, options, Ledger(out), **flags
    )
    return sorted(batch.run(jobs, lambda job, part: None), key=lambda one: one.job.source)


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def files(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_names_folders_and_dates_are_kept(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert statuses(enhance(photos, out)) == ["made"] * 4
    assert files(out) == [".superres.jsonl", "a.JPG", "b.jpeg", "sub/a.png", "sub/deep/c.png"]
    assert (out / "sub" / "a.png").stat().st_mtime == 1_000_000_002
    with Image.open(out / "a.JPG") as image:
        assert (image.format, image.size) == ("JPEG", (120, 80))


def test_a_changed_format_changes_the_suffix_and_of_twins_the_second_fails(photos, tmp_path):
    Image.open(photos / "b.jpeg").save(photos / "a.png")
    outcomes = enhance(photos, tmp_path / "out", output_format="webp")
    assert statuses(outcomes) == ["made", "failed", "made", "made", "made"]
    assert "a.webp is already the result of" in outcomes[1].reason
    assert (tmp_path / "out" / "sub" / "deep" / "c.webp").exists()


@pytest.mark.parametrize("seed", range(12))
def test_no_input_is_ever_overwritten(tmp_path: Path, chelsea: RgbU8, seed: int):
    """Names at random, into their own folder, or by a link to it."""
    random = np.random.default_rng(seed)
    folder = tmp_path / "photos" / "sub"
    folder.mkdir(parents=True)
    names = [
        f"{stem}{suffix}" for stem in "ab" for suffix in (".png", ".bmp", ".gif", ".jpg", ".PNG")
    ]
    for i, name in enumerate(random.choice(names, 6, replace=False)):
        Image.fromarray(np.roll(chelsea[:20, :30], i, axis=1)).save(folder / name)
        if i % 2:
            Image.fromarray(chelsea[:20, :30]).save(folder.parent / name)
    link = tmp_path / "link"
    link.symlink_to(folder)
    before = {file: file.read_bytes() for file in folder.parent.rglob("*.*")}
    out = [folder, link][seed % 2]
    chosen = [None, "png", "jpeg"][random.integers(3)]
    jobs = plan(
        [folder] if seed % 2 else [folder, folder.parent], out, chosen, recursive=False
    ).jobs
    enhancer = Enhancer(BlurEngine(GEOMETRY), GEOMETRY)
    batch = BatchRunner(enhancer, OPTIONS, Ledger(out), resume=False, force=True)
    outcomes = list(batch.run(jobs, lambda job, part: None))
    inputs = {job.source for job in jobs}
    assert {file for file in inputs if file.read_bytes() != before[file]} == set()
    assert len(outcomes) == len(jobs)


def test_a_target_that_is_another_input_is_named(tmp_path: Path, chelsea: RgbU8):
    for name in ("a.bmp", "a.png"):
        Image.fromarray(chelsea[:20, :30]).save(tmp_path / name)
    outcomes = enhance(tmp_path, tmp_path, force=True)
    assert statuses(outcomes) == ["failed", "failed"]
    assert "a.png is an input of this batch, and an input is never" in outcomes[0].reason


def test_the_device_does_one_thing_at_a_time(photos: Path, tmp_path: Path):
    engine = Watched()
    enhance(photos, tmp_path / "out", engine=engine)
    assert engine.calls >= 4
    assert engine.most == 1


def test_pictures_are_decoded_and_encoded_while_the_device_works(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The device waits in its first call until another picture has been decoded."""
    decoded = threading.Semaphore(0)

    def decode_and_tell(content: bytes, max_pixels: int) -> Picture:
        picture = decode(content, max_pixels=max_pixels)
        decoded.release()
        return picture

    class Waiting(Watched):
        def predict(self, tiles):
            if self.calls == 0:
                assert all(decoded.acquire(timeout=60) for _ in range(2))
            return super().predict(tiles)

    monkeypatch.setattr("superres.batch.runner.decode", decode_and_tell)
    assert statuses(enhance(photos, tmp_path / "out", engine=Waiting())) == ["made"] * 4


def test_what_is_done_is_left_out_by_content_and_by_settings(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    enhance(photos, out)
    engine = Watched()
    assert statuses(enhance(photos, out, resume=True, engine=engine)) == ["done already"] * 4
    assert engine.calls == 0

    (photos / "b.jpeg").write_bytes((photos / "a.JPG").read_bytes())
    outcomes = enhance(photos, out, resume=True)
    assert statuses(outcomes) == ["done already", "failed", "done already", "done already"]
    assert "made otherwise or of something else: use --force" in outcomes[1].reason
    assert statuses(enhance(photos, out, resume=True, force=True))[1] == "made"
    assert statuses(enhance(photos, out, resume=True)) == ["done already"] * 4

    others = [
        {"scale": 3},
        {"width": 120},
        {"scale": 2, "quality": 50},
        {"scale": 2, "icc": "srgb"},
    ]
    for other in (
        Options("blur@1", OPTIONS.parameters),
        *(Options("blur@0", Parameters(**asked)) for asked in others),
    ):
        assert statuses(enhance(photos, out, resume=True, options=other)) == ["failed"] * 4


def test_a_result_that_is_gone_or_changed_is_not_taken_for_done(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    enhance(photos, out)
    (out / "a.JPG").unlink()
    (out / "b.jpeg").write_bytes(b"half of")
    with (out / ".superres.jsonl").open("a") as ledger:
        ledger.write('{"target": "sub/a.p')  # cut short by a kill
    outcomes = enhance(photos, out, resume=True, force=True)
    assert statuses(outcomes) == ["made", "made", "done already", "done already"]
    assert statuses(enhance(photos, out, resume=True)) == ["done already"] * 4


def test_a_dry_run_names_what_is_broken_and_makes_nothing(photos: Path, tmp_path: Path):
    (photos / "sub" / "broken.png").write_bytes(plain()[:40])
    outcomes = enhance(photos, tmp_path / "out", dry_run=True)
    assert statuses(outcomes) == ["to be made"] * 3 + ["failed", "to be made"]
    assert outcomes[0].size == (80, 120)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_the_format_cannot_hold_fails_before_the_work_and_in_a_dry_run(
    tmp_path: Path, dry_run: bool
):
    source, engine = tmp_path / "long.png", Watched()
    source.write_bytes(plain(9000, 1))
    asked = {"dry_run": dry_run, "engine": engine, "output_format": "webp"}
    (outcome,) = enhance(source, tmp_path / "out", **asked)
    assert outcome.status == "failed"
    assert outcome.reason == "webp holds at most 16383 px a side; the output has 18000"
    assert engine.calls == 0


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_a_model_of_whole_pictures_refuses_fails_in_a_dry_run_too(
    photos: Path, tmp_path: Path, srcnn_card: ModelCard, dry_run: bool
):
    whole = Geometry(domain="hr", scale=2, halo=3, largest_tile=64, tiling=Tiling(mode="whole"))
    card, engine = srcnn_card.model_copy(update={"geometry": whole}), Watched()
    models = SizedEnhancer((card, BICUBIC), card.name, lambda card: Enhancer(engine, whole))
    batch = BatchRunner(models, OPTIONS, None, resume=False, force=False, dry_run=dry_run)
    job = plan([photos / "a.JPG"], tmp_path / "out", None, recursive=False).jobs[0]
    outcome = batch.do(job, lambda job, part: None)
    assert outcome.status == "failed"
    assert "works on whole pictures, of at most 4,096 pixels; this one has 9,600" in outcome.reason
    assert engine.calls == 0


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        ("a file for the folder", r"a\.JPG cannot be written, as .*/out is not a folder$"),
        ("a dead link for the folder", r"a\.JPG cannot be written, as .*/out is not a folder$"),
        ("a folder for the result", r"a\.JPG is a folder, which a result does not replace"),
        (
            "a folder of another user",
            r"a\.JPG cannot be written: this user may not write to .*/out$",
        ),
        ("notes of another user", r"^this user may not write to .*/out/\.superres\.jsonl$"),
    ],
)
def test_a_result_that_cannot_be_written_fails_before_the_work_and_in_a_dry_run(
    chelsea: RgbU8, obstacle: str, reason: str, dry_run: bool
):
    engine = Watched()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder, out = root / "in", root / "out"
        for one in (root, folder):
            one.mkdir(exist_ok=True)
            one.chmod(0o755)
        Image.fromarray(chelsea[:40, :60]).save(folder / "a.JPG")
        if obstacle == "a file for the folder":
            out.write_bytes(b"")
        elif obstacle == "a dead link for the folder":
            out.symlink_to(root / "nowhere")
        elif obstacle == "a folder for the result":
            (out / "a.JPG").mkdir(parents=True)
            out.chmod(0o777)
        elif obstacle == "a folder of another user":
            out.mkdir(mode=0o555)
        else:
            out.mkdir()
            out.chmod(0o777)
            (out / ".superres.jsonl").write_bytes(b"")
            (out / ".superres.jsonl").chmod(0o444)
        with nobody():
            (outcome,) = enhance(folder, out, dry_run=dry_run, engine=engine, force=True)
    assert outcome.status == "failed"
    assert re.search(reason, outcome.reason)
    assert engine.calls == 0


def test_results_below_the_input_are_not_taken_for_inputs(photos: Path):
    out = photos / "larger"
    assert len(enhance(photos, out)) == 4
    assert statuses(enhance(photos, out, resume=True)) == ["done already"] * 4


def test_an_input_inside_the_output_is_told_as_what_it_is(photos: Path, tmp_path: Path):
    for inside, output in ((photos, tmp_path), (photos / "sub", photos)):
        with pytest.raises(FileNotFoundError, match=r"all pictures in .* are in the output folder"):
            plan([inside], output, None, recursive=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*empty"):
        plan([tmp_path / "empty"], tmp_path, None, recursive=True)
    assert len(plan([photos / "b.jpeg"], photos.parent, None, recursive=False).jobs) == 1


@pytest.mark.parametrize("kind", ["hard", "symbolic"])
@pytest.mark.parametrize("note", [".superres.jsonl", ".superres/a.png.json"])
def test_notes_of_results_are_not_written_into_an_input(tmp_path: Path, note: str, kind: str):
    source, out = tmp_path / "a.png", tmp_path / "out"
    source.write_bytes(plain())
    (out / note).parent.mkdir(parents=True)
    if kind == "hard":
        (out / note).hardlink_to(source)
    else:
        (out / note).symlink_to(source)
    with pytest.raises(BadRequest, match=r"a\.png is an input of this batch, and .* notes its re"):
        plan([source], out, None, recursive=False)


def test_what_is_no_ledger_is_not_taken_for_one(photos: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".superres.jsonl").write_bytes(plain() + b"\n[]\n1\n")
    assert statuses(enhance(photos, tmp_path / "out", resume=True)) == ["made"] * 4


def test_a_dry_run_of_the_command_ends_in_a_table(photos: Path, tmp_path: Path):
    run = superres("enhance", photos, "-r", "-o", tmp_path / "out", "--dry-run")
    assert run.returncode == 0, run.stderr
    assert f"{photos / 'sub/a.png'} -> {tmp_path / 'out/sub/a.png'} (180x120)" in run.stderr
    assert "│ to be made │        4 │        0.1 │" in run.stderr
    assert not (tmp_path / "out").exists()


def mixed(folder: Path, chelsea: RgbU8, coffee: RgbU8) -> None:
    """200 files in several folders: ten formats and depths, ten of them broken."""
    for i in range(190):
        source = (chelsea, coffee)[i % 2]
        rgb = source[i % 90 : i % 90 + 90 + i % 40, 2 * i % 200 : 2 * i % 200 + 100 + i % 50]
        wide = rgb.astype(np.uint16) * 257
        name, content = [
            ("jpg", encoded(rgb, "JPEG", quality=90)),
            ("png", encoded(rgb)),
            ("webp", encoded(rgb, "WEBP")),
            ("tif", encoded(rgb, "TIFF")),
            ("bmp", encoded(rgb, "BMP")),
            ("gif", encoded(rgb, "GIF")),
            ("png", encode(Picture(wide), "png")),
            ("png", encode(Picture(rgb, grey=True), "png")),
            ("tiff", encode(Picture(np.dstack([wide, wide[..., 0]])), "tiff")),
            ("JPG", encoded(rgb[..., 0], "JPEG")),
        ][i % 10]
        file = folder / f"{i % 7}" / f"{i % 3}" / f"{i:03}.{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    broken = [b"", b"hello", plain()[:50], animated("GIF"), encoded(coffee, "JPEG")[:3000]]
    for i in range(10):
        (folder / f"{i % 7}" / f"broken-{i}.png").write_bytes(broken[i % 5])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_pictures_ten_broken_killed_half_way_and_resumed(
    tmp_path: Path, chelsea: RgbU8, coffee: RgbU8
):
    folder, out = tmp_path / "in", tmp_path / "out"
    mixed(folder, chelsea, coffee)
    command = [
        *(INSTALLED, "enhance", folder, "-o", out),
        *("--recursive", "--precision", "float32", "--device", "cpu"),
        "--no-provenance",  # so that the library makes the same
    ]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    results = lambda: {f for f in out.rglob("[!.]*") if f.is_file()}  # noqa: E731
    while len(results()) < 70 and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {file: file.stat().st_ino for file in results()}
    assert 70 <= len(before) < 190

    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert resumed.returncode == 1
    assert "10 of 200 failed:" in resumed.stderr
    assert all(f"broken-{i}.png: " in resumed.stderr for i in range(10))
    assert f"│ done already │      {len(before):3} │" in resumed.stderr
    assert f"│ made         │      {190 - len(before):3} │" in resumed.stderr
    assert {file: file.stat().st_ino for file in before} == before
    assert not list(out.rglob("*.partial"))

    enhancer = load_model("srcnn", scale=3, precision="float32", device="cpu")
    sources = [file for file in folder.rglob("*") if file.is_file() and "broken" not in file.name]
    made = {file.relative_to(out).with_suffix(""): file for file in results()}
    assert len(made) == len(sources) == 190
    for source in sources:
        result = made[source.relative_to(folder).with_suffix("")].read_bytes()
        expected = enhancer.enhance(decode(source.read_bytes()), 3)
        output_format = decode(result).source_format
        assert result == encode(expected, output_format)


def test_a_bucket_is_as_a_folder_is_and_remembers_for_many_machines(chelsea: RgbU8):
    bucket = UPath(f"memory://{uuid4().hex}")
    for name in ("a.png", "sub/b.jpg", "sub/.hidden.png", "out/c.png"):
        kind = "JPEG" if name.endswith("jpg") else "PNG"
        (bucket / name).write_bytes(encoded(chelsea[:40, :60], kind))
    out = bucket / "out"
    jobs = plan([bucket], out, None, recursive=True).jobs
    assert [job.target for job in jobs] == [out / "a.png", out / "sub" / "b.jpg"]
    assert {job.pixels for job in jobs} == {40 * 60}

    def enlarge(**options: bool) -> list[str]:
        enhancer = Enhancer(BlurEngine(GEOMETRY), GEOMETRY)
        options = {"resume": False, "force": False} | options
        batch = BatchRunner(enhancer, OPTIONS, SharedLedger(out), **options)
        return statuses(list(batch.run(jobs, lambda job, part: None)))

    assert enlarge() == ["made", "made"]
    assert decode((out / "sub" / "b.jpg").read_bytes()).size == (80, 120)
    assert enlarge() == ["failed", "failed"]
    assert enlarge(resume=True) == ["done already", "done already"]
    (out / "a.png").write_bytes(b"another's")
    assert sorted(enlarge(resume=True)) == ["done already", "failed"]
    assert enlarge(force=True) == ["made", "made"]


def test_an_error_of_a_buckets_own_kind_fails_its_picture_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
):
    class NoCredentials(Exception):
        pass

    def refuse(target: UPath, *args: object, **kwargs: object) -> None:
        if target.name == "a.png":
            raise NoCredentials("unable to locate credentials")
        write_whole(target, *args, **kwargs)

    monkeypatch.setattr("superres.batch.runner.write_whole", refuse)
    out = UPath(f"memory://{uuid4().hex}")
    enhancer = Enhancer(BlurEngine(GEOMETRY), GEOMETRY)
    batch = BatchRunner(enhancer, OPTIONS, SharedLedger(out), resume=False, force=False)
    jobs = plan([photos], out, None, recursive=True).jobs
    outcomes = {outcome.job.target.name: outcome for outcome in batch.run(jobs, lambda *_: None)}
    assert outcomes["a.png"].reason == "unable to locate credentials"
    others = {outcome.status for name, outcome in outcomes.items() if name != "a.png"}
    assert others == {"made"}


def test_a_shared_ledger_knows_what_one_machine_made(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    enhance(photos, out)
    batch = BatchRunner(None, OPTIONS, SharedLedger(out), resume=True, force=False)
    jobs = plan([photos], out, None, recursive=True).jobs
    assert set(statuses(list(batch.run(jobs, lambda job, part: None)))) == {"done already"}


def test_the_limit_on_pixels_is_told_with_the_way_out_and_can_be_raised(photos, tmp_path):
    refused = superres("enhance", photos, "-o", tmp_path / "out", "--dry-run", "--max-pixels", 10)
    assert refused.returncode == 1
    assert "at most 10 input pixels are accepted; this picture has 2,400 (60x40)" in refused.stderr
    assert "use --max-pixels" in refused.stderr
    raised = superres("enhance", photos, "-o", tmp_path / "out", "--dry-run", "--max-pixels", 2400)
    assert raised.returncode == 0


def test_a_result_that_a_proof_favours_bicubic_for_is_bicubics(
    photos: Path, tmp_path: Path, srcnn_card: ModelCard
):
    def load(card: ModelCard) -> Enhancer:
        """Bicubic itself, and a blur in place of the network."""
        return load_model("bicubic") if card == BICUBIC else blurring

    blurring = Enhancer(BlurEngine(srcnn_card.geometry), srcnn_card.geometry)
    models = SizedEnhancer((srcnn_card, BICUBIC), "srcnn", load)
    job = plan([photos / "a.JPG"], tmp_path / "out", "png", recursive=False).jobs[0]
    made = {}
    for asked in ({}, {"proof": True}, {"fallback": "auto"}):
        options = Options("blur@0", Parameters(scale=2, **asked))
        outcome = BatchRunner(models, options, None, resume=False, force=True).do(
            job, lambda job, part: None
        )
        made[str(asked)] = (decode(job.target.read_bytes()), outcome.note)
    (plain_one, note), (proved, told), (fallen, why) = made.values()
    assert "dB" not in note
    assert np.array_equal(proved.samples, plain_one.samples)
    assert re.match(r"-\d+\.\d\d dB over bicubic, by the proof; ", told)
    assert "by the proof; bicubic, as fallback=auto asks" in why
    assert not np.array_equal(fallen.samples, plain_one.samples)
    assert plain_one.xmp is not None
    assert fallen.xmp is None


def test_a_jpeg_without_loss_is_proved_like_any_picture(photos: Path, tmp_path: Path):
    picture = np.asarray(Image.open(photos / "sub/a.png"))
    (photos / "lossless.jpg").write_bytes(bytes(imagecodecs.jpeg8_encode(picture, lossless=True)))
    options = Options("blur@0", Parameters(scale=2, proof=True))
    outcomes = enhance(photos, tmp_path / "out", options=options)
    assert [one.status for one in outcomes] == ["made"] * 5
    assert all("dB over bicubic, by the proof" in one.note for one in outcomes)


def test_what_is_transparent_does_not_count_in_a_proof(photos: Path, tmp_path: Path):
    samples = np.dstack([np.asarray(Image.open(photos / "sub/a.png")), np.full((40, 60), 255)])
    samples[:, 30:, 3] = 0
    (folder := tmp_path / "cut out").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3))
    for name, hidden in (("kept", samples[..., :3]), ("noise", noise)):
        colours = np.where(samples[..., 3:] == 0, hidden, samples[..., :3])
        content = encoded(np.dstack([colours, samples[..., 3]]).astype(np.uint8))
        (folder / f"{name}.png").write_bytes(content)
    options = Options("blur@0", Parameters(scale=2, proof=True))
    first, second = enhance(folder, tmp_path / "out", options=options)
    assert "dB over bicubic, by the proof" in first.note
    assert first.note == second.note
