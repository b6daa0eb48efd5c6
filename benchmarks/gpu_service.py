"""The service on a GPU with ONNX Runtime: answers, speed, batches, transfer, two processes.

    pip install onnxruntime-gpu    # instead of onnxruntime
    python benchmarks/gpu_service.py --device gpu:0 --calls 64
    python benchmarks/gpu_service.py --device cpu --calls 4     # a trial of the script

An engine that does not agree with its card is refused when it is loaded. Besides, each model's
answer to a photograph, through the whole service, is compared with that of the CPU in float32.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np

from superres import load_model
from superres.codecs import Picture, decode, encode
from superres.engines import load_engine
from superres.engines.onnxruntime import OnnxRuntimeEngine
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODELS, read_cards
from superres.tiling import MULTIPLE
from tests.serving import link_models, serve_process

PHOTOGRAPH = Path(__file__).parents[1] / "app" / "web" / "photographs" / "coffee.jpg"
ROUNDS = 7


@contextmanager
def service(card: ModelCard, device: str) -> Iterator[httpx.Client]:
    """A process that serves one model on the device."""
    with tempfile.TemporaryDirectory() as folder:
        models = link_models(Path(folder), card.name)
        settings = {"models": models, "default_model": card.name, "runtime": "onnxruntime"}
        with serve_process(device=device, deadline_s=600, **settings) as (client, _):
            yield client


def answers_apart(client: httpx.Client, card: ModelCard) -> str:
    """Levels of 255 between the service's answer and the CPU's in float32."""
    picture = decode(PHOTOGRAPH.read_bytes())
    scale = card.geometry.scale
    enhanced = client.post(f"/enhance?format=png&scale={scale}", content=encode(picture, "png"))
    reference = load_model(card.name, device="cpu", precision="float32", runtime="onnxruntime")
    expected = reference.enhance(picture, scale)
    apart = np.abs(decode(enhanced.content).rgb.astype(int) - expected.rgb)
    return f"apart from the CPU's by {apart.max()} levels at most, {apart.mean():.3f} in the mean"


def megapixels_a_second(clients: list[httpx.Client], card: ModelCard, calls: int) -> float:
    """Of output, by eight callers of each service, which all call at the same time."""
    scale = card.geometry.scale
    side = round(1000 / scale)
    photograph = decode(PHOTOGRAPH.read_bytes()).rgb
    around = [(0, max(0, side - length)) for length in photograph.shape[:2]]
    body = encode(Picture(np.pad(photograph, [*around, (0, 0)], "symmetric")[:side, :side]), "jpeg")

    def call(client: httpx.Client) -> None:
        client.post(f"/enhance?scale={scale}", content=body).raise_for_status()

    with ThreadPoolExecutor(8 * len(clients)) as callers:
        list(callers.map(call, clients))  # to warm up
        began = time.perf_counter()
        list(callers.map(call, clients * calls))
        seconds = time.perf_counter() - began
    return len(clients) * calls * (side * scale) ** 2 / 1e6 / seconds


def tiles_of(card: ModelCard, count: int) -> tuple[np.ndarray, float]:
    """So many of the largest tiles, and the megapixels of their answers."""
    geometry = card.geometry
    side = geometry.largest_tile // geometry.upscale // MULTIPLE * MULTIPLE
    tiles = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return tiles, count * (side * geometry.upscale) ** 2 / 1e6


def median_ms(call: Callable[[], object]) -> float:
    """Of some calls, after one to warm up."""
    call()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def batches(engine: OnnxRuntimeEngine, card: ModelCard) -> Iterator[str]:
    """Speed of the bare engine by number of tiles in a call."""
    for count in (1, 2, 4, 8):
        tiles, megapixels = tiles_of(card, count)
        ms = median_ms(lambda tiles=tiles: engine.predict(tiles))
        yield f"{count} tiles a call: {1000 * megapixels / ms:.1f} MP/s"


def transfer(engine: OnnxRuntimeEngine, card: ModelCard, device: str) -> str:
    """A call from and to the host's memory, beside one whose tiles and answers stay on the GPU."""
    import onnxruntime

    session = engine._sessions["u8_float32"]
    kind, number = ("cpu", 0) if device == "cpu" else ("cuda", int(device.partition(":")[2]))
    tiles, megapixels = tiles_of(card, 1)
    there = onnxruntime.OrtValue.ortvalue_from_numpy(tiles, kind, number)
    binding = session.io_binding()
    binding.bind_ortvalue_input("tiles", there)
    binding.bind_output("answers", kind, number)

    def stay() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    whole = median_ms(lambda: engine._call("u8_float32", tiles)) / megapixels
    compute = median_ms(stay) / megapixels
    return f"{whole:.2f} ms a megapixel, {compute:.2f} of them without transfer"


def measure(card: ModelCard, device: str, calls: int) -> None:
    """Print all of one model."""
    with ExitStack() as stack:
        client = stack.enter_context(service(card, device))
        (served,) = client.get("/readyz").json()["models"]
        print(f"{card.name} on {served['device']} in {served['precision']}")
        print(" ", answers_apart(client, card))
        alone = megapixels_a_second([client], card, calls)
        print(f"  through the service, 8 callers: {alone:.1f} MP/s")
        other = stack.enter_context(service(card, device))
        both = megapixels_a_second([client, other], card, calls)
        print(f"  two processes on the device, 8 callers each: {both:.1f} MP/s", flush=True)
    folder = DEFAULT_MODELS / card.name
    engine = load_engine(folder, card, device=device, precision="float32", runtime="onnxruntime")
    assert isinstance(engine, OnnxRuntimeEngine)
    for line in batches(engine, card):
        print("  bare engine,", line)
    print("  bare engine, one tile:", transfer(engine, card, device), flush=True)


def main() -> None:
    """Measure each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="gpu:0")
    parser.add_argument("--calls", type=int, default=64, help="of each service")
    parser.add_argument("--models", nargs="*", default=["edsr-lite-x3", "srcnn-x3"])
    arguments = parser.parse_args()
    cards = {card.name: card for card in read_cards(DEFAULT_MODELS)}
    for name in arguments.models:
        measure(cards[name], arguments.device, arguments.calls)


if __name__ == "__main__":
    main()
