"""Bytes <-> Picture. The bytes decide the format; a file's name never does."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from superres.arrays import PlaneU8, PlaneU16, RgbU8, RgbU16, Size, to_integer
from superres.errors import AnimatedImage, BadImage, BadRequest, ImageTooLarge, UnsupportedFormat

OutputFormat = Literal["png", "jpeg", "webp", "tiff"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
MEDIA_TYPES: dict[OutputFormat, str] = {name: f"image/{name}" for name in OUTPUT_FORMATS}
SUFFIXES: dict[OutputFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
INPUT_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MAX_INPUT_PIXELS = 64_000_000
MAX_OUTPUT_PIXELS = 256_000_000
DEFAULT_QUALITY = 92

_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")
_LONGEST_SIDE: dict[OutputFormat, int] = {"jpeg": 65_535, "webp": 16_383}
_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B"}
_PROFILED_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16L", "I;16B"}

# Pillow's own guard has one limit for the whole process, and warns below it. Ours is
# checked on the header, before any pixel is decoded, and names the limit.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright: its EXIF orientation has been applied.

    ``rgb`` and ``alpha`` share their size and depth, 8 or 16 bits. A grey picture has
    three equal channels and ``grey`` set, so that it can be written as grey again.
    ``icc_profile`` is the profile that ``rgb`` (or its grey) is to be shown by.
    """

    rgb: RgbU8 | RgbU16
    alpha: PlaneU8 | PlaneU16 | None = None
    grey: bool = False
    icc_profile: bytes | None = None
    source_format: str = "png"

    @property
    def size(self) -> Size:
        """(height, width)."""
        height, width = self.rgb.shape[:2]
        return height, width


def decode(data: bytes, *, max_pixels: int = MAX_INPUT_PIXELS) -> Picture:
    """Decode an encoded picture: PNG, JPEG, WebP, TIFF, BMP or a still GIF.

    Palettes, bilevel and YCbCr become RGB; CMYK becomes sRGB by its own profile where it
    has one. 16 bits a sample are kept for PNG and TIFF, in grey and RGB.

    Args:
        data: the encoded file.
        max_pixels: most input pixels accepted; checked on the header.

    Raises:
        UnsupportedFormat: not one of these formats, or samples of 32 bits or floats.
        AnimatedImage: more than one frame or page.
        ImageTooLarge: more than ``max_pixels``.
        BadImage: empty, truncated or damaged.
    """
    if not data:
        raise BadImage("the picture is empty: 0 bytes")
    # A decoder fed hostile bytes raises whatever it likes: struct.error, IndexError,
    # zlib.error, SyntaxError and more have been seen.
    try:
        with Image.open(io.BytesIO(data), formats=INPUT_FORMATS) as image:
            _refuse_what_cannot_be_read(image, max_pixels)
            return _read(image, data)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC):
            raise BadImage(f"the picture's header is damaged ({len(data)} bytes)") from error
        raise UnsupportedFormat(
            f"not a picture in a format that is read here: {', '.join(INPUT_FORMATS)}; "
            f"it begins with {data[:8]!r}"
        ) from error
    except Exception as error:
        raise BadImage(f"the picture cannot be decoded: {error}") from error


def encode(picture: Picture, output_format: OutputFormat, quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode a picture, with its ICC profile.

    PNG and TIFF are lossless and keep alpha and 16 bits; WebP keeps alpha; JPEG (4:4:4)
    is flattened on white.

    Args:
        picture: what to encode.
        output_format: one of :data:`OUTPUT_FORMATS`.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        BadRequest: quality out of range.
        ImageTooLarge: a side is longer than the format can hold.
        UnsupportedFormat: not a format that is written here.
    """
    if output_format not in OUTPUT_FORMATS:
        raise UnsupportedFormat(
            f"format {output_format!r} is not written here: choose {', '.join(OUTPUT_FORMATS)}"
        )
    if not 1 <= quality <= 100:
        raise BadRequest(f"quality is 1 to 100, not {quality}")
    longest = _LONGEST_SIDE.get(output_format)
    if longest is not None and max(picture.size) > longest:
        raise ImageTooLarge(
            f"{output_format} holds at most {longest} px a side; the output has {max(picture.size)}"
        )
    if picture.rgb.dtype == np.uint16 and output_format in ("png", "tiff"):
        return _encode_16_bit(picture, output_format)
    image = _to_pillow(picture, keep_alpha=output_format != "jpeg")
    options: dict[OutputFormat, dict[str, object]] = {
        "png": {"compress_level": 3},
        "jpeg": {"quality": quality, "subsampling": 0},
        "webp": {"quality": quality},
        "tiff": {"compression": "tiff_adobe_deflate"},
    }
    out = io.BytesIO()
    image.save(out, output_format, icc_profile=picture.icc_profile or b"", **options[output_format])
    return out.getvalue()


def default_output_format(picture: Picture) -> OutputFormat:
    """Return the picture's own format where it is written here, else PNG."""
    return picture.source_format if picture.source_format in OUTPUT_FORMATS else "png"


def what_is_lost(picture: Picture, output_format: OutputFormat) -> list[str]:
    """What the format cannot hold of the picture, in words.

    >>> what_is_lost(Picture(np.zeros((1, 1, 3), np.uint16)), "jpeg")
    ['16 bits rounded to 8']
    """
    lost = []
    if picture.alpha is not None and output_format == "jpeg":
        lost.append("alpha flattened on white")
    if picture.rgb.dtype == np.uint16 and output_format in ("jpeg", "webp"):
        lost.append("16 bits rounded to 8")
    return lost


def _refuse_what_cannot_be_read(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"at most {max_pixels:,} input pixels are accepted; "
            f"this picture has {width * height:,} ({width}x{height})"
        )
    # A phone's MPO is a JPEG with previews behind it; the first frame is the photograph.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", 2)
        raise AnimatedImage(
            f"one frame is accepted; this {image.format} has {frames}: animated and "
            "multi-page files are not enhanced"
        )
    if image.mode in ("I", "F"):
        raise UnsupportedFormat(
            "at most 16 bits a sample are read; this picture has 32-bit or float samples"
        )


def _read(image: Image.Image, data: bytes) -> Picture:
    mode = image.mode
    icc_profile = image.info.get("icc_profile") if mode in _PROFILED_MODES else None
    source_format = "jpeg" if image.format == "MPO" else str(image.format).lower()
    samples = _read_16_bit(image, data)
    if samples is None:
        upright = ImageOps.exif_transpose(image)
        if mode == "CMYK":
            upright = _cmyk_to_srgb(upright)
        transparent = upright.has_transparency_data
        if mode in _GREY_MODES:
            grey_mode = "LA" if transparent else "L"
            samples = np.atleast_3d(np.asarray(upright.convert(grey_mode)))
        else:
            samples = np.asarray(upright.convert("RGBA" if transparent else "RGB"))
    grey = samples.shape[2] < 3
    colours = samples[..., :1].repeat(3, axis=2) if grey else samples[..., :3]
    return Picture(
        rgb=np.ascontiguousarray(colours),
        alpha=np.ascontiguousarray(samples[..., -1]) if samples.shape[2] in (2, 4) else None,
        grey=grey,
        icc_profile=icc_profile or None,
        source_format=source_format,
    )


def _read_16_bit(image: Image.Image, data: bytes) -> np.ndarray | None:
    """[h, w, channels] uint16, upright, or None: Pillow keeps but the high byte of RGB."""
    # Their import takes longer than decoding most pictures, and few have 16 bits.
    if image.format == "PNG" and data[24] == 16:
        import imagecodecs

        orientation = image.getexif().get(0x0112, 1)
        samples = np.atleast_3d(imagecodecs.png_decode(data))
    elif image.format == "TIFF" and 16 in image.tag_v2.get(258, ()):  # type: ignore[attr-defined]
        import tifffile

        orientation = image.getexif().get(0x0112, 1)
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = cast(tifffile.TiffPage, tiff.pages[0])
            samples = np.asarray(page.asarray())
            if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples.ndim == 3:
                samples = np.moveaxis(samples, 0, -1)
            samples = np.atleast_3d(samples)
            if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                samples = 65_535 - samples
            elif page.photometric not in (
                tifffile.PHOTOMETRIC.MINISBLACK,
                tifffile.PHOTOMETRIC.RGB,
            ):
                kind = tifffile.PHOTOMETRIC(page.photometric).name
                raise UnsupportedFormat(f"16-bit TIFF is read in grey and RGB, not {kind}")
    else:
        return None
    if samples.dtype != np.uint16 or samples.shape[2] > 4:
        raise UnsupportedFormat(
            f"at most 4 channels of unsigned 16-bit samples are read; "
            f"this picture has {samples.shape[2]} of {samples.dtype}"
        )
    return _upright(samples, orientation)


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (TIFF 6.0, tag 274), for arrays."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except ImageCms.PyCMSError:
            pass  # a damaged profile says nothing about the colours
        else:
            return cast(Image.Image, converted)
    return image.convert("RGB")


def _to_pillow(picture: Picture, *, keep_alpha: bool) -> Image.Image:
    image = Image.fromarray(to_integer(picture.rgb, np.uint8))
    if picture.grey:
        image = image.convert("L")
    if picture.alpha is None:
        return image
    alpha = Image.fromarray(to_integer(picture.alpha, np.uint8))
    if keep_alpha:
        image.putalpha(alpha)
        return image
    white = Image.new(image.mode, image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _encode_16_bit(picture: Picture, output_format: OutputFormat) -> bytes:
    alpha = [] if picture.alpha is None else [picture.alpha[..., None]]
    # Few programs read a TIFF of grey with alpha at 16 bits; Pillow does not.
    grey = picture.grey and not (output_format == "tiff" and alpha)
    colours = picture.rgb[..., :1] if grey else picture.rgb
    samples = np.squeeze(np.concatenate([colours, *alpha], axis=2))
    samples = samples.reshape(*picture.size, *samples.shape[2:])
    if output_format == "png":
        import imagecodecs

        encoded = bytes(imagecodecs.png_encode(samples, level=3))
        return _with_png_profile(encoded, picture.icc_profile)
    import tifffile

    out = io.BytesIO()
    tifffile.imwrite(
        out,
        samples,
        photometric="minisblack" if grey else "rgb",
        planarconfig="contig" if samples.ndim == 3 else None,
        extrasamples=["unassalpha"] if alpha else None,
        compression="adobe_deflate",
        predictor=True,
        iccprofile=picture.icc_profile,
        metadata=None,
    )
    return out.getvalue()


def _with_png_profile(png: bytes, icc_profile: bytes | None) -> bytes:
    """Insert an iCCP chunk behind IHDR: the 16-bit encoder has no option for it."""
    if icc_profile is None:
        return png
    body = b"iCCP" + b"ICC Profile\0\0" + zlib.compress(icc_profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    after_header = 8 + 25
    return png[:after_header] + chunk + png[after_header:]
