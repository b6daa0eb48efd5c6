"""PyTorch files of the networks that spandrel knows, as ONNX files."""

import warnings
from pathlib import Path

from superres.errors import BadRequest

SUFFIXES = frozenset({".ckpt", ".pth", ".safetensors"})
SIDE = 64
"""Side of the picture on which the network is traced, px."""
INSTALL = (
    "pip install spandrel torch torchvision, the latter two from "
    "https://download.pytorch.org/whl/cpu for a CPU alone"
)


def to_onnx(file: Path, onnx_file: Path) -> None:
    """Write the network of a PyTorch file as an ONNX file, with dynamic sides.

    spandrel recognises the network by its weights, and reads no code from such a file, as it would
    from TorchScript (.pt).

    Raises:
        BadRequest: spandrel or PyTorch is not installed, spandrel does not know the network, or
            PyTorch cannot write it.
    """
    try:
        import spandrel
        import torch
    except ModuleNotFoundError as error:
        raise BadRequest(f"{file.name} needs more packages ({error}): {INSTALL}") from error
    sides = {0: "n", 2: "h", 3: "w"}
    try:
        loaded = spandrel.ModelLoader(device="cpu").load_from_file(file)
        picture = torch.zeros(1, loaded.input_channels, SIDE, SIDE)
        with warnings.catch_warnings():
            # PyTorch prefers its other exporter, which needs one package more.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                loaded.model.eval(),
                (picture,),
                onnx_file,
                opset_version=18,
                dynamo=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": sides, "output": sides},
            )
    except Exception as error:  # of spandrel, of unpickling, of PyTorch
        raise BadRequest(f"{file.name} cannot be converted to ONNX: {error}") from error
