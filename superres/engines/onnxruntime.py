"""The engine of ONNX files on ONNX Runtime. This is the one place that imports it."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from superres.engines.base import LoadedEngine, Precision, Signature, gpu_number
from superres.errors import EngineError, ModelMismatch

ONNX = "onnx"
"""Folder of the ONNX files in a model's folder, and their format's name."""
ONNX_FILES: dict[Signature, str] = {"u8_float32": "u8.onnx", "f32": "f32.onnx"}
"""File of each signature. The weights that they share are in a file beside them."""
INT8_FILE = "int8.onnx"
"""File of the signature ``u8_int8``, of models whose card says that they offer it."""
COREML = "CoreMLExecutionProvider"
GPU_PROVIDERS = ("CUDAExecutionProvider", "DmlExecutionProvider", COREML)
"""What a build of ONNX Runtime may have for a GPU, the first in preference."""
CPU_PROVIDER = "CPUExecutionProvider"

logger = logging.getLogger("superres")


class OnnxRuntimeEngine(LoadedEngine):
    """ONNX files from ``tiles`` to ``answers``, one for uint8 and one for float32.

    On a CPU it computes in float32, and in int8 where the model offers it; ONNX Runtime has no
    convolutions in bfloat16 there.
    ``auto`` takes the GPU of CUDA or DirectML, where the installed build has one of them; CoreML,
    which every build for macOS has, is taken where it is asked for as ``gpu:0``.
    """

    FORMAT: ClassVar[str] = ONNX
    FOLDER: ClassVar[str] = ONNX
    PACKAGE: ClassVar[str] = "onnxruntime"
    INSTALL: ClassVar[str] = "pip install onnxruntime, or onnxruntime-gpu for CUDA"

    def _load(self, files: Path, device: str) -> None:
        onnxruntime = _import_onnxruntime()
        self.device, providers = _find_device(onnxruntime.get_available_providers(), device)
        if not self._on_cpu and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA's libraries, where pip installed them
        names = dict(ONNX_FILES)
        if self.card.int8 is not None and self._on_cpu:
            names["u8_int8"] = INT8_FILE
        try:
            self._sessions = {
                signature: _session(files / name, providers) for signature, name in names.items()
            }
        except Exception as error:  # its classes have no other base
            raise ModelMismatch(
                f"{self.card.name}: ONNX Runtime cannot load it: {error}"
            ) from error
        # ONNX Runtime takes the CPU instead of a GPU whose libraries it cannot load.
        name = providers[0] if self._on_cpu else providers[0][0]
        if any(session.get_providers()[0] != name for session in self._sessions.values()):
            if device == "auto":
                logger.warning("ONNX Runtime cannot start %s: the CPU is used", name)
                return self._load(files, "cpu")
            raise EngineError(
                f"ONNX Runtime cannot start {name}: install the CUDA and cuDNN that this build is "
                "for, as by pip install 'onnxruntime-gpu[cuda,cudnn]', or set the device to cpu"
            )
        for signature, session in self._sessions.items():
            self._check_types(signature, names[signature], session)

    def _check_types(self, signature: Signature, file: str, session: Any) -> None:
        wanted = "tensor(float)" if signature == "f32" else "tensor(uint8)"
        takes = {one.name: one.type for one in session.get_inputs()}
        returns = {one.name: one.type for one in session.get_outputs()}
        if takes != {"tiles": wanted} or returns != {"answers": wanted}:
            raise ModelMismatch(
                f"{self.card.name}: {file} must take tiles and return answers, "
                f"both {wanted}; it takes {takes} and returns {returns}"
            )

    def _call(self, signature: Signature, tiles: np.ndarray) -> np.ndarray:
        try:
            (answers,) = self._sessions[signature].run(["answers"], {"tiles": tiles})
        except Exception as error:
            raise EngineError(f"{self.card.name} failed on {self.device}: {error}") from error
        return answers

    @property
    def _on_cpu(self) -> bool:
        return self.device == "/CPU:0"

    @property
    def _precisions(self) -> tuple[Precision, ...]:
        return ("float32", "int8") if "u8_int8" in self._sessions else ("float32",)


def open_onnx(model: Path | bytes) -> Callable[[np.ndarray], np.ndarray]:
    """A file of ``tiles`` and ``answers``, or its bytes, on the CPU, without any check."""
    session = _session(model, [CPU_PROVIDER])
    return lambda tiles: session.run(["answers"], {"tiles": tiles})[0]


def _import_onnxruntime() -> Any:
    # Otherwise it prepares to report its use as it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _session(model: Path | bytes, providers: list[Any]) -> Any:
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # By itself it takes a thread a core of the machine, whichever of them this process may use.
    options.intra_op_num_threads = _usable_cores()
    # Its threads would go on spinning while others decode and encode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # It would keep a plan of memory for each shape of tiles, and the memory of all of them.
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors; its warnings are about nodes on the CPU
    return onnxruntime.InferenceSession(model, options, providers=providers)


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _find_device(available: list[str], device: str) -> tuple[str, list[Any]]:
    """This project's name of the device, and ONNX Runtime's providers for it."""
    gpu = next((one for one in GPU_PROVIDERS if one in available), None)
    if device == "cpu" or (device == "auto" and gpu in (None, COREML)):
        return "/CPU:0", [CPU_PROVIDER]
    number = 0 if device == "auto" else gpu_number(device)
    if gpu is None or (number and gpu == COREML):
        raise EngineError(
            f"device {device!r} was asked for; this ONNX Runtime has {', '.join(available)}"
        )
    options = {} if gpu == COREML else {"device_id": str(number)}
    return f"/GPU:{number}", [(gpu, options), CPU_PROVIDER]
