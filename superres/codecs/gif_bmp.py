"""GIF and BMP: formats that are read, and not written."""

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile

from superres.codecs import pillow
from superres.codecs.headers import bmp, gif


class _Gif(GifImageFile):
    _seek = pillow.without_pillows_limit(GifImageFile._seek)


probe_gif, decode_gif = pillow.reader("gif", _Gif, gif.read)
probe_bmp, decode_bmp = pillow.reader("bmp", BmpImageFile, bmp.read)
