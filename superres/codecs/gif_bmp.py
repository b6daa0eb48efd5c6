"""GIF and BMP: formats that are read, and not written."""

from functools import partial

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile

from superres.codecs import pillow


class _Gif(GifImageFile):
    _seek = pillow.without_pillows_limit(GifImageFile._seek)


probe_gif = partial(pillow.probe, "gif", _Gif)
decode_gif = partial(pillow.decode, "gif", _Gif)
probe_bmp = partial(pillow.probe, "bmp", BmpImageFile)
decode_bmp = partial(pillow.decode, "bmp", BmpImageFile)
