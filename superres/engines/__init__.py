"""Engines: tiles in, tiles out; and which one loads a model.

A new engine is a module here and a row of :data:`ENGINES`. The module imports its runtime when it
loads a model, not before: importing this package imports no runtime.
"""

from pathlib import Path

from superres.engines.base import LoadedEngine, PrecisionChoice, Runtime
from superres.engines.bicubic import BicubicEngine
from superres.engines.onnxruntime import OnnxRuntimeEngine
from superres.engines.processor import computes_in_bfloat16, is_installed
from superres.engines.tensorflow import SavedModelEngine
from superres.errors import EngineError, ModelMismatch
from superres.models.card import ModelCard

ENGINES: dict[str, type[LoadedEngine]] = {
    "bicubic": BicubicEngine,
    "tensorflow": SavedModelEngine,
    "onnxruntime": OnnxRuntimeEngine,
}
"""Every engine, by the name of its runtime; TensorFlow comes first."""


def load_engine(
    folder: Path,
    card: ModelCard,
    *,
    precision: PrecisionChoice = "auto",
    device: str = "auto",
    runtime: Runtime = "auto",
) -> LoadedEngine:
    """Load a model with the engine of its format, and check it.

    The other arguments are those of :class:`LoadedEngine`.

    Args:
        folder: the model's folder.
        card: its card.
        precision: see there.
        device: see there.
        runtime: what runs it; ``auto`` takes the fastest that is installed.

    Raises:
        ModelMismatch: no engine loads its formats, or the model is not what its card says.
        EngineError: no such device, or the runtime is not installed.
    """
    engine = engine_class(card, runtime=runtime, precision=precision, device=device)
    return engine(folder, card, precision=precision, device=device)


def check_files(folder: Path, card: ModelCard) -> None:
    """Check a model's files, of all its formats, against its card, without loading them.

    Raises:
        ModelMismatch: no engine loads a format; a file is missing, changed, or not on the card.
    """
    engines = {engine.FORMAT: engine for engine in _engines_for(card).values()}
    for engine in engines.values():
        engine.check_files(folder, card)


def engine_class(
    card: ModelCard,
    *,
    runtime: Runtime = "auto",
    precision: PrecisionChoice = "auto",
    device: str = "auto",
) -> type[LoadedEngine]:
    """The engine that loads a model; the arguments are those of :func:`load_engine`.

    Raises:
        ModelMismatch, EngineError: as :func:`load_engine`.
    """
    engines = _engines_for(card)
    if runtime != "auto":
        # Bicubic needs no runtime.
        engines = {
            name: engine
            for name, engine in engines.items()
            if name == runtime or not engine.PACKAGE
        }
        if not engines:
            raise EngineError(
                f"{card.name} has the formats {', '.join(card.formats)}, and {runtime} reads "
                f"{ENGINES[runtime].FORMAT}: set another runtime, or add the format by "
                f"superres-train convert {card.name}"
            )
    installed = {
        name: engine
        for name, engine in engines.items()
        if not engine.PACKAGE or is_installed(engine.PACKAGE)
    }
    if not installed:
        ways = "; ".join(f"for {name}: {engine.INSTALL}" for name, engine in engines.items())
        raise EngineError(f"what runs {card.name} is not installed. {ways}")
    return installed[min(installed, key=_order(card, precision, device).index)]


def _engines_for(card: ModelCard) -> dict[str, type[LoadedEngine]]:
    known = {engine.FORMAT for engine in ENGINES.values()}
    if unknown := card.formats.keys() - known:
        raise ModelMismatch(
            f"{card.name}: the card says format {unknown.pop()!r}; "
            f"there is an engine for {', '.join(sorted(known))}"
        )
    return {name: engine for name, engine in ENGINES.items() if engine.FORMAT in card.formats}


def _order(card: ModelCard, precision: PrecisionChoice, device: str) -> list[str]:
    """All runtimes, the fastest first, as ``benchmarks/runtimes.py`` measured them.

    TensorFlow is the faster one in float32, and alone computes in bfloat16 on a CPU. ONNX Runtime
    alone computes in int8, which takes about as long as bfloat16, and loses a little.
    """
    on_gpu = device.startswith("gpu")
    in_int8 = precision == "int8" or (
        precision == "auto" and not on_gpu and not computes_in_bfloat16()
    )
    if in_int8 and card.int8 is not None:
        return sorted(ENGINES, key=lambda name: name != "onnxruntime")
    return list(ENGINES)
