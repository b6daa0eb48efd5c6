"""ONNX Runtime beside TensorFlow: which of them runs a model, and that their answers agree."""

import base64
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import superres.engines
from superres import Enhancer
from superres.engines import OnnxRuntimeEngine, check_files, engine_class, load_engine
from superres.engines.onnxruntime import ONNX, _find_device
from superres.engines.tensorflow import SavedModelEngine
from superres.errors import EngineError, ModelMismatch
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard, hash_files, read_card, write_card
from superres.models.registry import DEFAULT_MODELS, choose, read_cards
from tests.needs import package

pytestmark = pytest.mark.xdist_group("shipped model")
CARDS = read_cards(DEFAULT_MODELS)
QUANTISED = "edsr-nano-x3"
"""A model that offers int8; `superres-train quantise` makes it so."""
ORT = "onnxruntime"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the smallest shipped model, to be tampered with."""
    package("onnxruntime")
    return shutil.copytree(DEFAULT_MODELS / "srcnn-x3", tmp_path / "srcnn-x3")


def load(folder: Path) -> OnnxRuntimeEngine:
    return load_engine(folder, read_card(folder), device="cpu", runtime="onnxruntime")


def have(monkeypatch: pytest.MonkeyPatch, *packages: str, bfloat16: bool = False) -> None:
    """Let only these packages be installed, on a processor with or without bfloat16."""
    monkeypatch.setattr(superres.engines, "is_installed", lambda name: name in packages)
    monkeypatch.setattr(superres.engines, "computes_in_bfloat16", lambda: bfloat16)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_shipped_model_has_both_formats(card: ModelCard):
    """`superres-train convert` adds the second."""
    assert card.formats.keys() == {"savedmodel", ONNX}
    check_files(DEFAULT_MODELS / card.name, card)


@pytest.mark.parametrize(
    "card", [pytest.param(card, marks=pytest.mark.slow, id=card.name) for card in CARDS]
)
def test_both_runtimes_agree_to_one_level(card: ModelCard, chelsea):
    package("tensorflow")
    package("onnxruntime")
    folder = DEFAULT_MODELS / card.name
    engines = [
        load_engine(folder, card, device="cpu", precision="float32", runtime=runtime)
        for runtime in ("tensorflow", "onnxruntime")
    ]
    assert [type(engine) for engine in engines] == [SavedModelEngine, OnnxRuntimeEngine]
    tiles = chelsea[None, 100:200, 100:212]
    reference, answers = (engine.predict(tiles).astype(int) for engine in engines)
    assert answers.shape == reference.shape
    assert np.abs(answers - reference).max() <= 1
    samples = tiles.astype(np.float32) / np.float32(255)
    reference, answers = (engine.predict(samples) for engine in engines)
    assert np.abs(answers - reference).max() < 1e-5


def test_tiles_of_any_number_and_size_are_answered_alike(copy: Path, chelsea):
    engine = load(copy)
    assert (engine.device, engine.precision) == ("/CPU:0", "float32")
    halo = engine.card.geometry.halo
    tiles = np.stack([chelsea[:64, :96], chelsea[64:128, :96]])
    together = engine.predict(tiles)
    assert np.array_equal(together[1], engine.predict(tiles[1:])[0])
    part = engine.predict(tiles[:, 16:48, 16:80])
    inner = slice(halo, -halo)
    assert np.array_equal(part[:, inner, inner], together[:, 16:48, 16:80][:, inner, inner])


@pytest.mark.parametrize(
    ("card", "precision", "device", "bfloat16", "first"),
    [
        ("edsr-lite-x3", "auto", "auto", True, "tensorflow"),
        ("edsr-lite-x3", "bfloat16", "auto", False, "tensorflow"),
        ("edsr-lite-x3", "auto", "gpu:0", False, "tensorflow"),
        ("edsr-lite-x3", "auto", "auto", False, "onnxruntime"),
        ("edsr-lite-x3", "float32", "cpu", False, "tensorflow"),
        ("srcnn-x3", "auto", "cpu", False, "tensorflow"),
        ("edsr-nano-x3", "int8", "cpu", True, "onnxruntime"),
        ("srcnn-x3", "int8", "cpu", True, "tensorflow"),
    ],
)
def test_auto_takes_the_runtime_that_is_faster_for_the_model(
    monkeypatch, card, precision, device, bfloat16, first
):
    model = choose(CARDS, card, 3)
    asked = {"precision": precision, "device": device}
    have(monkeypatch, "tensorflow", "onnxruntime", bfloat16=bfloat16)
    assert engine_class(model, **asked) is superres.engines.ENGINES[first]
    for only in ("tensorflow", "onnxruntime"):
        have(monkeypatch, only, bfloat16=bfloat16)
        assert engine_class(model, **asked) is superres.engines.ENGINES[only]


def test_a_runtime_that_is_not_installed_is_named_with_what_brings_it(monkeypatch, srcnn_card):
    have(monkeypatch)
    with pytest.raises(EngineError, match=r"tensorflow: pip install tensorflow-cpu, or .*; for o"):
        engine_class(srcnn_card)
    have(monkeypatch, "tensorflow")
    with pytest.raises(EngineError, match=r"is not installed\. for onnxruntime: pip install onnx"):
        engine_class(srcnn_card, runtime="onnxruntime")
    assert engine_class(BICUBIC, runtime="onnxruntime").FORMAT == "bicubic"


def test_what_is_hidden_from_imports_is_not_installed(monkeypatch):
    assert superres.engines.is_installed("numpy")
    assert not superres.engines.is_installed("no_such_package")
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert not superres.engines.is_installed("numpy")


def test_a_model_without_the_format_of_the_runtime_is_named_with_the_way_out(srcnn_card):
    card = srcnn_card.model_copy(update={"more_formats": {}})
    with pytest.raises(EngineError, match=r"reads onnx: .* superres-train convert srcnn-x3"):
        engine_class(card, runtime="onnxruntime")


def test_bfloat16_that_onnx_runtime_has_not_is_refused(copy: Path):
    with pytest.raises(EngineError, match="computes in float32 on this CPU:0, not in bfloat16"):
        load_engine(copy, read_card(copy), precision="bfloat16", runtime="onnxruntime")


@pytest.mark.slow
def test_int8_is_near_float32_and_tiled_as_whole(chelsea):
    package("onnxruntime")
    card = choose(CARDS, QUANTISED, 3)
    float32, int8 = (
        load_engine(
            DEFAULT_MODELS / card.name, card, device="cpu", precision=precision, runtime=ORT
        )
        for precision in ("float32", "int8")
    )
    assert int8.precision == "int8"
    picture = chelsea[:150, :200]
    size = (450, 600)
    exact, whole, tiled = (
        Enhancer(engine, geometry).enhance_rgb(picture, size)
        for engine, geometry in (
            (float32, card.geometry),
            (int8, card.geometry),
            (int8, card.geometry.model_copy(update={"largest_tile": 96})),
        )
    )
    assert np.array_equal(whole, tiled)
    assert 0.05 < np.abs(whole.astype(int) - exact).mean() < 0.6
    samples = picture[None, :64, :64] / np.float32(255)
    assert np.array_equal(float32.predict(samples), int8.predict(samples))


@pytest.mark.parametrize(
    ("seconds_of_float32", "agrees", "taken"),
    [(1.4, True, "int8"), (1.2, True, "float32"), (1.4, False, "float32")],
)
def test_auto_takes_int8_where_it_agrees_with_the_card_and_is_much_faster(
    monkeypatch, seconds_of_float32, agrees, taken
):
    """By a clock that only the network's calls move."""
    package("onnxruntime")
    card = choose(CARDS, QUANTISED, 3)
    if not agrees:
        answer = base64.b64encode(bytes(len(base64.b64decode(card.int8.answer)))).decode()
        wrong = card.int8.model_copy(update={"answer": answer})
        card = card.model_copy(update={"int8": wrong})
    seconds = 0.0
    call = OnnxRuntimeEngine._call

    def timed(engine: OnnxRuntimeEngine, signature: str, tiles: np.ndarray) -> np.ndarray:
        nonlocal seconds
        seconds += seconds_of_float32 if signature == "u8_float32" else 1
        return call(engine, signature, tiles)

    monkeypatch.setattr(OnnxRuntimeEngine, "_call", timed)
    monkeypatch.setattr("superres.engines.base.time", SimpleNamespace(perf_counter=lambda: seconds))
    folder = DEFAULT_MODELS / card.name
    assert OnnxRuntimeEngine(folder, card, device="cpu").precision == taken
    if not agrees:
        with pytest.raises(ModelMismatch, match="u8_int8 differs from the card's example"):
            OnnxRuntimeEngine(folder, card, device="cpu", precision="int8")


def test_a_model_that_does_not_offer_int8_computes_in_float32(copy: Path):
    engine = load_engine(copy, read_card(copy), device="cpu", precision="int8", runtime=ORT)
    assert engine.precision == "float32"


def test_a_changed_onnx_file_is_noticed_and_named(copy: Path):
    file = copy / ONNX / "weights.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelMismatch, match=r"onnx/weights\.bin has SHA-256 \w+\.\.\., the card"):
        load(copy)
    with pytest.raises(ModelMismatch, match=r"onnx/weights\.bin has SHA-256"):
        check_files(copy, read_card(copy))


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (lambda files: (files / "u8.onnx").write_bytes(b"no"), "ONNX Runtime cannot load it"),
        (lambda files: (files / "u8.onnx").unlink(), "ONNX Runtime cannot load it"),
        (
            lambda files: shutil.copy(files / "f32.onnx", files / "u8.onnx"),
            r"u8.onnx must take tiles and return answers, both tensor\(uint8\)",
        ),
        (
            lambda files: (files / "weights.bin").write_bytes(
                bytes((files / "weights.bin").stat().st_size)
            ),
            "f32 differs from the card's example",
        ),
    ],
)
def test_onnx_files_that_their_card_lists_and_that_are_wrong_are_refused(
    copy: Path, tamper, reason
):
    tamper(copy / ONNX)
    card = read_card(copy)
    write_card(copy, card.model_copy(update={"more_formats": {ONNX: hash_files(copy / ONNX)}}))
    with pytest.raises(ModelMismatch, match=reason):
        load(copy)


def test_onnx_runtime_reports_its_use_to_nobody(copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    load(copy)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_an_error_of_the_runtime_is_an_engine_error(copy: Path):
    engine = load(copy)
    with pytest.raises(EngineError, match="srcnn-x3 failed on /CPU:0"):
        engine._call("u8_float32", np.zeros((1, 32, 32, 4), np.uint8))


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDA")
def test_a_gpu_that_onnx_runtime_cannot_start_is_no_cpu_by_another_name(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """This build has no CUDA, and falls back as one that does not find CUDA's libraries."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
    with pytest.raises(EngineError, match="cannot start CUDAExecutionProvider: install the CUDA"):
        OnnxRuntimeEngine(copy, read_card(copy), device="gpu:0")
    assert OnnxRuntimeEngine(copy, read_card(copy), device="auto").device == "/CPU:0"
    assert "cannot start CUDAExecutionProvider: the CPU is used" in caplog.text


CUDA, COREML, CPU = (f"{one}ExecutionProvider" for one in ("CUDA", "CoreML", "CPU"))


def test_a_device_is_one_of_the_builds_providers():
    assert _find_device([CPU], "auto") == ("/CPU:0", [CPU])
    assert _find_device([CUDA, CPU], "cpu") == ("/CPU:0", [CPU])
    assert _find_device([CUDA, CPU], "auto") == ("/GPU:0", [(CUDA, {"device_id": "0"}), CPU])
    assert _find_device([CUDA, CPU], "gpu:1") == ("/GPU:1", [(CUDA, {"device_id": "1"}), CPU])
    assert _find_device([COREML, CPU], "auto") == ("/CPU:0", [CPU])
    assert _find_device([COREML, CPU], "gpu:0") == ("/GPU:0", [(COREML, {}), CPU])
    for available, device in (([CPU], "gpu:0"), ([COREML, CPU], "gpu:1"), ([CPU], "tpu")):
        with pytest.raises(EngineError, match=device):
            _find_device(available, device)
