"""One small picture in every form that an input file has, by writers that are not tested here.

PNG and TIFF are built byte by byte; HEIC and AVIF of items; JPEG XL is written by libvips and
imagecodecs, the others by Pillow.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import imagecodecs
import numpy as np
import pillow_heif
from PIL import Image, ImageOps

from superres.colour_profiles import grey_profile_of
from tests import heics, jxls
from tests.pictures import SRGB_PROFILE, WIDE_PROFILE, saved
from tests.raw_files import bmp_with_alpha, deep_png, exif, exif_chunk, iccp, png, tiff
from tests.vips import Vips

HEIGHT, WIDTH = 32, 48
ORIENTATIONS = (1, 3, 5, 6)
PROFILES = {
    "RGB": {"none": None, "sRGB": SRGB_PROFILE, "P3": WIDE_PROFILE},
    "grey": {"none": None, "gamma 1.8": grey_profile_of((1.8,))},
}
HEIF_TURNS = {
    1: (),
    2: (heics.mirrored(1),),
    3: (heics.turned(2),),
    4: (heics.mirrored(0),),
    5: (heics.turned(3), heics.mirrored(1)),
    6: (heics.turned(3),),
    7: (heics.turned(1), heics.mirrored(1)),
    8: (heics.turned(1),),
}
NCLX = heics.nclx(1, 13, 6)
"""sRGB, in YCbCr as in JPEG."""
AVIF_ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"


@dataclass(frozen=True)
class Case:
    """A file, and what is true of it."""

    format: str
    kind: str
    data: bytes
    bits: int
    grey: bool
    alpha: bool
    profile: bool = False
    orientation: int = 1
    exif: bool = True
    dpi: bool = False
    converted: tuple[str, ...] = ()
    """What reading it converts, besides the orientation, as the notes name it."""
    dropped: tuple[str, ...] = ()
    reference: bytes = b""
    """The same picture in a file that libvips reads, if it does not read this one."""
    loss: float = 0
    """Levels of 255 by which it differs from its reference."""
    stored: np.ndarray | None = None
    """[h, w, 3 or 4] from 0 to 1, as the file has them; None if nothing but the file says so."""

    @property
    def steps(self) -> bool:
        """Whether its colours change in steps, which lossy formats blur."""
        return "palette to RGB" in self.converted

    @property
    def name(self) -> str:
        profile = ", profile" if self.profile else ""
        return f"{self.format}, {self.kind}{profile}, orientation {self.orientation}"

    @property
    def upright(self) -> np.ndarray | None:
        """:attr:`stored`, as it is shown."""
        if self.stored is None:
            return None
        planes = []
        for plane in np.moveaxis(self.stored, -1, 0):
            image = Image.fromarray(plane.astype(np.float32))
            image.getexif()[0x0112] = self.orientation
            planes.append(np.asarray(ImageOps.exif_transpose(image)))
        return np.dstack(planes)


def scene(grey: bool, alpha: bool, bits: int) -> np.ndarray:
    """[h, w, channels] of integers: no turn and no swap of channels looks like another.

    Its colours change slowly, so that no format loses much of them, and are in sRGB by a wider
    profile, too: at the edge of sRGB a level is several.
    """
    across = np.linspace(0, 1, WIDTH)[None].repeat(HEIGHT, 0)
    down = np.linspace(0, 1, HEIGHT)[:, None].repeat(WIDTH, 1)
    if grey:
        planes = [0.1 + 0.5 * across + 0.4 * down**2]
    else:
        planes = [0.42 + 0.38 * across, 0.42 + 0.38 * down, 0.8 - 0.2 * down - 0.15 * across]
    if alpha:
        planes.append(np.clip(1.2 * across - 0.1, 0, 1))
    most = 2**bits - 1
    return np.rint(np.dstack(planes) * most).astype(np.uint8 if bits <= 8 else np.uint16)


def shown(samples: np.ndarray, bits: int) -> np.ndarray:
    """[h, w, 3 or 4] from 0 to 1 of such integers."""
    channels = samples.shape[2]
    order = {1: [0, 0, 0], 2: [0, 0, 0, 1]}.get(channels, list(range(channels)))
    return samples[..., order] / (2**bits - 1)


def colours_of(samples: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices [h, w, 1] and a palette [colours, 3] for [h, w, 3] of 8 bits."""
    image = Image.fromarray(samples[..., :3]).quantize(count, dither=Image.Dither.NONE)
    palette = np.array(image.getpalette()[: 3 * count], np.uint8).reshape(-1, 3)
    return np.asarray(image)[..., None], palette


def pngs(vips: Vips) -> Iterator[Case]:
    for grey, alpha, bits in product((True, False), (False, True), (1, 2, 4, 8, 16)):
        if bits < 8 and not (grey and not alpha):
            continue
        samples = scene(grey, alpha, bits)
        colour_type = 2 * (not grey) + 4 * alpha
        for (_, icc), turn in product(PROFILES["grey" if grey else "RGB"].items(), ORIENTATIONS):
            about = {"bits": bits, "grey": grey, "profile": icc is not None, "orientation": turn}
            kind = f"{bits} bits {'grey' if grey else 'RGB'}{' with alpha' * alpha}"
            chunks = (*iccp(icc), exif_chunk(turn))
            data = png(samples, bits, colour_type, *chunks)
            plain = shown(samples, bits)
            yield Case("png", kind, data, alpha=alpha, stored=plain, **about)
            if alpha or icc is not None:
                continue
            # The colour of one pixel is transparent, wherever it is.
            clear = samples[3, 7]
            trns = (b"tRNS", struct.pack(f">{len(clear)}H", *clear))
            data = png(samples, bits, colour_type, *chunks, trns)
            opaque = (samples != clear).any(axis=2, keepdims=True)
            stored = np.concatenate([plain, opaque], axis=2)
            yield Case(
                "png",
                f"{kind}, one colour transparent",
                data,
                alpha=True,
                reference=deep_png(stored, grey, *chunks),
                stored=stored,
                **about,
            )
    for bits, transparent in product((1, 2, 4, 8), (False, True)):
        index, palette = colours_of(scene(False, False, 8), 2**bits)
        plain = palette[index[..., 0]] / 255
        for (_, icc), turn in product(PROFILES["RGB"].items(), ORIENTATIONS):
            chunks = [*iccp(icc), (b"PLTE", palette.tobytes()), exif_chunk(turn)]
            stored = plain
            if transparent and icc is not None:
                continue
            if transparent:
                chunks.append((b"tRNS", b"\x40"))
                stored = np.dstack([plain, np.where(index[..., 0] == 0, 64 / 255, 1)])
            yield Case(
                "png",
                f"palette of {bits} bits{', one transparent' * transparent}",
                png(index, bits, 3, *chunks),
                bits=8,
                grey=False,
                alpha=transparent,
                profile=icc is not None,
                orientation=turn,
                converted=("palette to RGB",),
                stored=stored,
            )


def jpegs(vips: Vips) -> Iterator[Case]:
    for grey, icc, turn in _axes():
        about = {"grey": grey, "alpha": False, "profile": icc is not None, "orientation": turn}
        image = Image.fromarray(scene(grey, False, 8).squeeze())
        options = {"icc_profile": icc, "exif": exif(turn), "quality": 95}
        for subsampling in ("4:4:4",) if grey else ("4:4:4", "4:2:0"):
            data = saved(image, "JPEG", subsampling=subsampling, **options)
            kind = "grey" if grey else f"RGB {subsampling}"
            yield Case("jpeg", kind, data, bits=8, stored=shown(np.atleast_3d(image), 8), **about)
        samples = scene(grey, False, 12)
        data = bytes(imagecodecs.jpeg8_encode(samples, level=97, bitspersample=12, optimize=True))
        block = exif(turn).tobytes()
        segments = [(0xE1, block if block.startswith(b"Exif") else b"Exif\0\0" + block)]
        segments += [] if icc is None else [(0xE2, b"ICC_PROFILE\0\1\1" + icc)]
        inserted = b"".join(
            struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body for kind, body in segments
        )
        yield Case(
            "jpeg",
            f"12 bits {'grey' if grey else 'RGB'}",
            data[:2] + inserted + data[2:],
            bits=12,
            converted=("12 bits to 16",),
            loss=0.5,
            reference=deep_png(shown(samples, 12), grey, *iccp(icc), exif_chunk(turn)),
            stored=shown(samples, 12),
            **about,
        )
    cmyk = Image.fromarray(scene(False, False, 8)).convert("CMYK")
    for profiled, turn in product((False, True), ORIENTATIONS):
        icc = vips.cmyk_profile() if profiled else None
        yield Case(
            "jpeg",
            "CMYK",
            saved(cmyk, "JPEG", quality=95, icc_profile=icc, exif=exif(turn)),
            bits=8,
            grey=False,
            alpha=False,
            orientation=turn,
            converted=("CMYK to sRGB",),
            loss=0.6,
            reference=b"" if profiled else png(scene(False, False, 8), 8, 2, exif_chunk(turn)),
            stored=None if profiled else shown(scene(False, False, 8), 8),
        )


def _axes() -> Iterator[tuple[bool, bytes | None, int]]:
    """Grey or not, with the profiles of that, in each orientation."""
    for grey in (True, False):
        for icc, turn in product(PROFILES["grey" if grey else "RGB"].values(), ORIENTATIONS):
            yield grey, icc, turn


def webps(vips: Vips) -> Iterator[Case]:
    for alpha, lossless, icc, turn in product(
        (False, True), (False, True), PROFILES["RGB"].values(), ORIENTATIONS
    ):
        samples = scene(False, alpha, 8)
        data = saved(
            Image.fromarray(samples),
            "WEBP",
            lossless=lossless,
            quality=95,
            exact=True,
            icc_profile=icc,
            exif=exif(turn),
        )
        yield Case(
            "webp",
            f"{'lossless' if lossless else 'lossy'}{' with alpha' * alpha}",
            data,
            bits=8,
            grey=False,
            alpha=alpha,
            profile=icc is not None,
            orientation=turn,
            stored=shown(samples, 8),
        )


def tiffs(vips: Vips) -> Iterator[Case]:
    for grey, icc, turn in _axes():
        about = {"grey": grey, "profile": icc is not None, "orientation": turn}
        chunks = (*iccp(icc), exif_chunk(turn))
        for alpha, bits in product((False, True), (1, 2, 4, 8, 10, 12, 16)):
            if bits < 8 and (alpha or not grey):
                continue
            samples = scene(grey, alpha, bits)
            depth = (f"{bits} bits to 16",) if 8 < bits < 16 else ()
            plain = shown(samples, bits)
            yield Case(
                "tiff",
                f"{bits} bits {'grey' if grey else 'RGB'}{' with alpha' * alpha}",
                tiff(samples, bits, 1 if grey else 2, turn, icc=icc, extra=2 if alpha else None),
                bits=bits,
                alpha=alpha,
                converted=depth,
                reference=b"" if bits in (1, 8, 16) else deep_png(plain, grey, *chunks),
                stored=plain,
                **about,
            )
        for kind in (np.float16, np.float32):
            samples = scene(grey, False, 16)
            bits = np.dtype(kind).itemsize * 8
            yield Case(
                "tiff",
                f"float{bits} {'grey' if grey else 'RGB'}",
                tiff((samples / 65_535).astype(kind), bits, 1 if grey else 2, turn, icc=icc),
                bits=bits,
                alpha=False,
                converted=(f"float{bits} to 16 bits",),
                reference=png(samples, 16, 0 if grey else 2, *chunks),
                stored=shown(samples, 16),
                **about,
            )
    for bits, icc, turn in product((4, 8), PROFILES["RGB"].values(), ORIENTATIONS):
        index, palette = colours_of(scene(False, False, 8), 2**bits)
        yield Case(
            "tiff",
            f"palette of {bits} bits",
            tiff(index, bits, 3, turn, icc=icc, palette=palette),
            bits=8,
            grey=False,
            alpha=False,
            profile=icc is not None,
            orientation=turn,
            converted=("palette to RGB",),
            reference=png(palette[index[..., 0]], 8, 2, *iccp(icc), exif_chunk(turn)),
            stored=palette[index[..., 0]] / 255,
        )
    cmyk = np.asarray(Image.fromarray(scene(False, False, 8)).convert("CMYK"))
    for profiled, turn in product((False, True), ORIENTATIONS):
        yield Case(
            "tiff",
            "CMYK",
            tiff(cmyk, 8, 5, turn, icc=vips.cmyk_profile() if profiled else None),
            bits=8,
            grey=False,
            alpha=False,
            orientation=turn,
            converted=("CMYK to sRGB",),
            loss=0.6 if profiled else 0,
            reference=b"" if profiled else png(scene(False, False, 8), 8, 2, exif_chunk(turn)),
            stored=None if profiled else shown(scene(False, False, 8), 8),
        )


def bmps(vips: Vips) -> Iterator[Case]:
    samples = scene(False, True, 8)
    grey = scene(True, False, 8).squeeze()
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        image = {
            "1": Image.fromarray(grey).point(lambda level: 255 * (level > 127), "1"),
            "L": Image.fromarray(grey),
            "P": Image.fromarray(samples[..., :3]).quantize(64, dither=Image.Dither.NONE),
            "RGB": Image.fromarray(samples[..., :3]),
            "RGBA": Image.fromarray(samples),
        }[mode]
        data = saved(image, "BMP") if mode != "RGBA" else bmp_with_alpha(samples)
        stored = np.asarray(image.convert("RGBA" if mode == "RGBA" else "RGB")) / 255
        yield Case(
            "bmp",
            mode,
            data,
            bits=8,
            grey=mode in ("1", "L"),
            alpha=mode == "RGBA",
            exif=False,
            dpi=mode != "RGBA",
            converted=("palette to RGB",) if mode == "P" else (),
            stored=stored,
        )


def gifs(vips: Vips) -> Iterator[Case]:
    image = Image.fromarray(scene(False, False, 8)).quantize(64, dither=Image.Dither.NONE)
    rgb = np.asarray(image.convert("RGB")) / 255
    clear = np.dstack([rgb, np.asarray(image) != 3])
    about = {"bits": 8, "grey": False, "exif": False, "converted": ("palette to RGB",)}
    yield Case("gif", "palette", saved(image, "GIF"), alpha=False, stored=rgb, **about)
    data = saved(image, "GIF", transparency=3)
    yield Case("gif", "one transparent", data, alpha=True, stored=clear, **about)
    framed = bytearray(saved(image, "GIF"))
    framed[6:10] = struct.pack("<HH", WIDTH + 8, HEIGHT + 4)
    canvas = np.pad(np.dstack([rgb, np.ones(rgb.shape[:2])]), ((0, 4), (0, 8), (0, 0)))
    yield Case(
        "gif",
        "frame in a canvas",  # which libvips fills with black
        bytes(framed),
        alpha=True,
        reference=deep_png(canvas, False),
        stored=canvas,
        **about,
    )


def heifs(vips: Vips) -> Iterator[Case]:
    yield from _of_items("heif", (b"heic", b"mif1", b"heic"), heics.ALPHA, _hevc)


def avifs(vips: Vips) -> Iterator[Case]:
    yield from _of_items("avif", (b"avif", b"mif1", b"miaf"), AVIF_ALPHA, _av1)


def _hevc(samples: np.ndarray, bits: int) -> bytes:
    options = pillow_heif.options
    twelve, options.SAVE_HDR_TO_12_BIT = options.SAVE_HDR_TO_12_BIT, bits == 12
    try:
        wide = samples if bits == 8 else samples << (16 - bits)
        chroma = 420 if bits == 8 else 444  # as phones write, and exactly
        return heics.heic(np.ascontiguousarray(wide.squeeze()), 100, chroma=chroma)
    finally:
        options.SAVE_HDR_TO_12_BIT = twelve


def _av1(samples: np.ndarray, bits: int) -> bytes:
    return heics.avif(np.ascontiguousarray(samples.squeeze()), bitspersample=bits)


def _of_items(
    name: str, brands: tuple[bytes, ...], alpha_kind: bytes, encode: Callable[..., bytes]
) -> Iterator[Case]:
    """Each depth is encoded once; what is said of it is in properties."""
    for grey, bits in product((True, False), (8, 10, 12)):
        colours, opacity = scene(grey, False, bits), scene(grey, True, bits)[..., -1:]
        coded, coded_opacity = encode(colours, bits), encode(opacity, bits)
        profiles = PROFILES["grey" if grey else "RGB"].values()
        for alpha, icc, turn in product((False, True), profiles, ORIENTATIONS):
            file = heics.Builder(brands=brands)
            properties = [] if icc is None else [heics.profile(icc)]
            primary = file.add_coded(coded, NCLX, *properties, *HEIF_TURNS[turn])
            if alpha:
                turns = HEIF_TURNS[turn]
                file.add_coded(coded_opacity, heics.auxiliary(alpha_kind), *turns, auxl=[primary])
            file.add(b"Exif", bytes(4) + heics.exif(orientation=6), cdsc=[primary])
            stored = shown(np.dstack([colours, opacity]) if alpha else colours, bits)
            chunks = (*iccp(icc), exif_chunk(turn))
            yield Case(
                name,
                f"{bits} bits {'grey' if grey else 'RGB'}{' with alpha' * alpha}",
                file.file(),
                bits=bits,
                grey=grey,
                alpha=alpha,
                profile=icc is not None,
                orientation=turn,
                # libheif 1.15 turns 8 bits alone.
                reference=deep_png(stored, grey, *chunks) if bits > 8 and turn != 1 else b"",
                # Decoders round YCbCr in their own ways.
                loss=0.5 if bits > 8 and turn != 1 else 0.2,
                stored=stored,
            )


def jxls_of_all_kinds(vips: Vips) -> Iterator[Case]:
    for grey, alpha in product((True, False), (False, True)):
        colour = f"{'grey' if grey else 'RGB'}{' with alpha' * alpha}"
        about = {"grey": grey, "alpha": alpha}
        for bits, icc in product((8, 16), PROFILES["grey" if grey else "RGB"].values()):
            samples = scene(grey, alpha, bits)
            yield Case(
                "jxl",
                f"{bits} bits {colour}",
                vips.jxl(samples, icc),
                bits=bits,
                profile=icc is not None,
                exif=False,
                stored=shown(samples, bits),
                **about,
            )
        for turn in ORIENTATIONS:
            samples = scene(grey, alpha, 8)
            data = bytes(imagecodecs.jpegxl_encode(samples.squeeze(), level=101))
            yield Case(
                "jxl",
                f"8 bits {colour}, turned",
                jxls.turned(data, turn),
                bits=8,
                orientation=turn,
                exif=False,
                stored=shown(samples, 8),
                **about,
            )
        for bits in (10, 12):
            samples = scene(grey, alpha, bits).squeeze()
            # Of 16 bits, imagecodecs says that they are linear.
            data = bytes(imagecodecs.jpegxl_encode(samples, level=101, bitspersample=bits))
            kind = f"{bits} bits {colour}"
            yield Case("jxl", kind, data, bits=bits, profile=True, exif=False, **about)


def all_cases(vips: Vips) -> list[Case]:
    """Every one, in an order that is always the same."""
    kinds = (pngs, jpegs, webps, tiffs, bmps, gifs, heifs, avifs, jxls_of_all_kinds)
    return [case for kind in kinds for case in kind(vips)]
