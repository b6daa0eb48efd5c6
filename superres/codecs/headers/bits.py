"""Numbers in streams of bits, the highest bit of a byte first, as AV1 and HEVC write them."""

from superres.codecs.headers.isobmff import damaged


class Bits:
    """Reads numbers one behind the other.

    Args:
        data: the stream.
    """

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def next(self, length: int) -> int:
        """The number in the next bits.

        Raises:
            BadImage: there are fewer.
        """
        if length > self._left:
            raise damaged("its parameters end too soon")
        self._left -= length
        return self._number >> self._left & (1 << length) - 1

    def flag(self) -> bool:
        """The next bit."""
        return bool(self.next(1))

    def exponential_golomb(self) -> int:
        """The next number of unknown length: as many zeros as it has bits, and the number."""
        zeros = 0
        while not self.flag():
            zeros += 1
            if zeros > 32:
                raise damaged("its parameters have a number that is too long")
        return (1 << zeros) - 1 + self.next(zeros)
