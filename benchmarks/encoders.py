"""Time and size of each lossy encoder at equal quality: `python benchmarks/encoders.py PHOTO...`.

Each encoder's own quality is searched for at which it comes as close to the photograph as JPEG
does, by PSNR of RGB or by SSIM, at each of JPEG's qualities; there its seconds of CPU, in one
thread, and its bytes are measured. Means over the photographs.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pyjpegxl
from PIL import Image
from skimage.metrics import structural_similarity

from superres.arrays import RgbU8

Encode = Callable[[RgbU8, float], bytes]
STEPS = 6
"""Of the search for a quality, in which it is halved."""


def _jpeg(picture: RgbU8, quality: float) -> bytes:
    return _pillow(picture, "JPEG", quality=round(quality), subsampling=0)


def _webp(picture: RgbU8, quality: float) -> bytes:
    return bytes(imagecodecs.webp_encode(picture, level=quality, lossless=False, method=2))


def _avif(speed: int, subsampling: str) -> Encode:
    def encode(picture: RgbU8, quality: float) -> bytes:
        options = {"speed": speed, "subsampling": subsampling, "max_threads": 1}
        return _pillow(picture, "AVIF", quality=round(quality), **options)

    return encode


def _jxl(effort: str) -> Encode:
    def encode(picture: RgbU8, quality: float) -> bytes:
        distance = 0.1 + 0.09 * (100 - quality)
        speed = getattr(pyjpegxl.EncoderSpeed, effort)
        return pyjpegxl.encode_from_numpy(picture, quality=distance, speed=speed)

    return encode


def _pillow(picture: RgbU8, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, image_format, **options)
    return out.getvalue()


ENCODERS: dict[str, Encode] = {
    "WebP": _webp,
    **{f"AVIF 4:4:4, speed {speed}": _avif(speed, "4:4:4") for speed in (6, 8, 9, 10)},
    "AVIF 4:2:0, speed 8": _avif(8, "4:2:0"),
    **{f"JPEG XL, {effort}": _jxl(effort) for effort in ("Falcon", "Cheetah", "Hare", "Squirrel")},
}


def _decoded(data: bytes) -> RgbU8:
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        return imagecodecs.jpegxl_decode(data, numthreads=1)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def psnr(picture: RgbU8, data: bytes) -> float:
    """In dB, of RGB."""
    error = np.square(_decoded(data).astype(np.float32) - picture).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def ssim(picture: RgbU8, data: bytes) -> float:
    """In dB, of luma: -10 log10(1 - SSIM)."""
    shown, true = (
        np.asarray(Image.fromarray(one).convert("L")) for one in (_decoded(data), picture)
    )
    return float(-10 * np.log10(1 - structural_similarity(true, shown)))


SCORES = {"PSNR": psnr, "SSIM": ssim}


def equal(encode: Encode, picture: RgbU8, score: Callable, wanted: float) -> tuple[float, bytes]:
    """The lowest quality of an encoder that reaches a score, and its file."""
    low, high = 1.0, 100.0
    data = encode(picture, high)
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = encode(picture, middle)
        if score(picture, tried) >= wanted:
            high, data = middle, tried
        else:
            low = middle
    return high, data


def seconds(encode: Encode, picture: RgbU8, quality: float) -> float:
    """Seconds of CPU for a megapixel."""
    began = time.process_time()
    encode(picture, quality)
    return (time.process_time() - began) / (picture.shape[0] * picture.shape[1] / 1e6)


def main() -> None:
    """Print a table for each quality of JPEG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--qualities", type=int, nargs="*", default=[60, 80, 92])
    parser.add_argument("--side", type=int, default=768, help="of the middle that is used")
    parser.add_argument("--score", choices=SCORES, default="SSIM")
    options = parser.parse_args()
    photos = []
    for path in options.photos:
        image = Image.open(path).convert("RGB")
        left, top = ((side - options.side) // 2 for side in image.size)
        box = (max(0, left), max(0, top), left + options.side, top + options.side)
        photos.append(np.asarray(image.crop(box)))
    score = SCORES[options.score]
    for quality in options.qualities:
        wanted = [score(photo, _jpeg(photo, quality)) for photo in photos]
        length = np.mean([len(_jpeg(photo, quality)) for photo in photos])
        spent = np.mean([seconds(_jpeg, photo, quality) for photo in photos])
        print(f"\nas JPEG at {quality}: {options.score} {np.mean(wanted):.2f} dB")
        print("| encoder | its quality | size, of JPEG's | s CPU per MP |\n|---|---:|---:|---:|")
        print(f"| JPEG 4:4:4 | {quality} | 1.00 | {spent:.3f} |", flush=True)
        for name, encode in ENCODERS.items():
            found = [
                equal(encode, photo, score, one) for photo, one in zip(photos, wanted, strict=True)
            ]
            size = np.mean([len(data) for _, data in found]) / length
            own = np.mean([one for one, _ in found])
            measured = np.mean(
                [seconds(encode, photo, one) for photo, (one, _) in zip(photos, found, strict=True)]
            )
            print(f"| {name} | {own:.0f} | {size:.2f} | {measured:.3f} |", flush=True)


if __name__ == "__main__":
    main()
