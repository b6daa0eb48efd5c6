"""What enhancing a picture will take, from its header alone: tiles and memory."""

from dataclasses import dataclass

from superres.arrays import Size
from superres.codecs import FORMATS, MAX_OUTPUT_PIXELS, Header, OutputFormat
from superres.engines.ensemble import VIEWS
from superres.enhancer import COLUMNS, native_size, plan
from superres.models.card import Geometry
from superres.resample import cropped_size, scaled_size
from superres.sizing import Target, resolve
from superres.tiling import Plan

BYTES_PER_PIXEL = 1.3 * 4
"""Of input and output together, at 8 bits a sample: each exists once, and a third again for
what decoders and encoders keep. Twice as many at 16 bits."""
BYTES_PER_TILE_SAMPLE = 12
"""Of the tiles in flight, at 8 bits: the bands that they are cut from, and their copies in the
queue. Four times as many at 16 bits, which are float32 there."""
BYTES_PER_ANSWER_SAMPLE = 4
"""Of the answers to them, likewise."""
BYTES_PER_ENSEMBLE_SAMPLE = 16
"""Of the answers, besides, at either depth: the sum of the views, and their mean in float32."""

DECODER_BYTES = 16 * 2**20
"""What a decoder takes, however small the picture is: a tile of TIFF that is larger than it
(:data:`superres.codecs.limits.MAX_TILE_PIXELS`, of up to 8 bytes, twice), the whole blocks of a
JPEG that is one pixel wide, directories of EXIF as objects of Python. A process that decodes must
have it; :func:`forecast` leaves it out, since most pictures need none of it."""
FILE_COPIES = 3
"""Copies of the file that decoding makes at most: libwebp's own, metadata before and after its
orientation is taken out."""

BYTES_PER_COMPARED_PIXEL = 165
"""Four pictures, and the float64 planes that PSNR and SSIM are computed on. With the tiles in
flight, `make bench-memory` finds 162 to 184."""


@dataclass(frozen=True)
class Forecast:
    """What one picture takes. ``peak_bytes`` counts the encoded bodies in, at their largest."""

    output_size: Size
    tiles: int
    """Tiles of the picture, as progress counts them."""
    engine_pixels: int
    """Pixels that the engine makes, of all tiles and views, halo and padding included. The device
    takes its time for these, whatever is cut off afterwards."""
    peak_bytes: int
    proof_pixels: int = 0
    """Pixels that the engine makes for a proof, which comes first."""


def forecast(
    header: Header,
    encoded_bytes: int,
    target: float | Target,
    geometry: Geometry,
    *,
    output_format: OutputFormat = "png",
    ensemble: bool = False,
    max_pixels: int = MAX_OUTPUT_PIXELS,
) -> Forecast:
    """Compute what enhancing takes, before any pixel is decoded.

    Args:
        header: of the picture.
        encoded_bytes: length of its file.
        target: a scale of 1 to 4, or a size.
        geometry: of the model.
        output_format: that will be written.
        ensemble: whether eight views of each tile are averaged.
        max_pixels: most output pixels that are made.

    Raises:
        BadRequest: the target is out of range.
        ImageTooLarge: more than ``max_pixels`` output pixels.

    >>> geometry = Geometry(domain="hr", scale=2, halo=7, largest_tile=512)
    >>> cost = forecast(Header("jpeg", (3000, 4000), 8), 5_000_000, 2, geometry)
    >>> cost.output_size, cost.tiles, cost.engine_pixels, cost.peak_bytes
    ((6000, 8000), 260, 51916800, 537677120)
    """
    sizing = resolve(header.size, target, max_pixels=max_pixels)
    size = sizing.size
    made = native_size(header.size, size, geometry, sizing.box)
    cut = plan(made, geometry)
    out = size[0] * size[1]
    given = header.size[0] * header.size[1]
    sixteen = header.bits == 16
    peak = (
        (given + out) * BYTES_PER_PIXEL * (2 if sixteen else 1)
        # What the network makes is kept until it is resized.
        + (
            0
            if made == size and sizing.box is None
            else made[0] * made[1] * 3 * (2 if sixteen else 1)
        )
        + _in_flight(cut, geometry, 4 if sixteen else 1, ensemble)
        # An answer that does not compress at all has three samples a pixel.
        + encoded_bytes
        + out * 3 * (2 if sixteen else 1)
        + out * FORMATS[output_format].encoder_bytes_per_pixel
        + (out * FORMATS[output_format].encoder_bytes_per_alpha_pixel if header.alpha else 0)
    )
    peak = max(peak, _decoding(header, encoded_bytes))
    scored = _scored_plan(header.size, sizing.scale, geometry)
    return Forecast(
        output_size=size,
        tiles=cut.tiles,
        engine_pixels=_engine_pixels(cut, geometry, ensemble),
        peak_bytes=int(peak),
        # Of a picture that only gets smaller, no proof is made.
        proof_pixels=0 if sizing.shrinks else _engine_pixels(scored, geometry, ensemble),
    )


def forecast_decoding(header: Header, encoded_bytes: int) -> int:
    """Compute the bytes of memory that :func:`superres.codecs.decode` takes at most, and the file.

    >>> forecast_decoding(Header("jpeg", (3000, 4000), 8), 5_000_000)
    228777216
    """
    return DECODER_BYTES + _decoding(header, encoded_bytes)


def forecast_comparison(
    header: Header,
    encoded_bytes: int,
    scale: float,
    geometry: Geometry,
    *,
    ensemble: bool = False,
) -> Forecast:
    """What :func:`superres.evaluation.proof.compare` takes with this picture as the truth."""
    pixels = header.size[0] * header.size[1]
    cut = _scored_plan(header.size, scale, geometry)
    peak = pixels * BYTES_PER_COMPARED_PIXEL + _in_flight(cut, geometry, 1, ensemble)
    engine_pixels = _engine_pixels(cut, geometry, ensemble)
    peak = max(peak + encoded_bytes, _decoding(header, encoded_bytes))
    return Forecast(header.size, cut.tiles, engine_pixels, peak)


def _decoding(header: Header, encoded_bytes: int) -> int:
    pixels = header.size[0] * header.size[1]
    of_format = FORMATS[header.source_format].decoder_bytes_per_pixel
    decoder = pixels * max(of_format, header.decoder_bytes_per_pixel)
    return decoder + (1 + FILE_COPIES) * encoded_bytes


def _scored_plan(truth: Size, scale: float, geometry: Geometry) -> Plan:
    """How the plane is cut when a shrunken copy of a picture is brought back to its size."""
    size = cropped_size(truth, scale)
    return plan(native_size(scaled_size(size, 1 / scale), size, geometry), geometry)


def _engine_pixels(cut: Plan, geometry: Geometry, ensemble: bool) -> int:
    """Pixels that the engine makes of all tiles of a plane."""
    tile_pixels = cut.tile[0] * cut.tile[1] * geometry.upscale**2
    return cut.tiles * tile_pixels * (VIEWS if ensemble else 1)


def _in_flight(cut: Plan, geometry: Geometry, sample_bytes: int, ensemble: bool) -> int:
    """Bytes of the tiles that are with the engine at a time."""
    samples = min(cut.tiles, COLUMNS) * cut.tile[0] * cut.tile[1] * 3
    answers = samples * geometry.upscale**2
    both = samples * BYTES_PER_TILE_SAMPLE + answers * BYTES_PER_ANSWER_SAMPLE
    return both * sample_bytes + (answers * BYTES_PER_ENSEMBLE_SAMPLE if ensemble else 0)
