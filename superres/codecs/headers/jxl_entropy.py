"""Entropy-coded numbers of JPEG XL (ISO/IEC 18181-1, annex C), as the table of a frame has them."""

from collections.abc import Iterable
from typing import NamedTuple

from superres.codecs.headers.isobmff import damaged
from superres.codecs.headers.jxl import Bits

PrefixCode = dict[int, int]
"""Symbols by the bits that stand for them, the first one highest, behind a 1."""


def _code(symbols: dict[str, int]) -> PrefixCode:
    return {int(f"1{key}", 2): symbol for key, symbol in symbols.items()}


_RANGE_BITS = 12
_RANGE = 1 << _RANGE_BITS
_FINAL_STATE = 0x130000
_MOST_CLUSTERS = 256
_MOST_COPIED = 2**20
_LONGEST_CODE = 15
_LENGTH_ORDER = (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_LENGTHS = _code({"00": 0, "10": 4, "01": 3, "110": 2, "1110": 1, "1111": 5})
_COUNTS = _code(
    {"000": 10, "001": 6, "010": 7, "011": 9, "101": 8, "1001": 4, "1100": 3, "1101": 1}
    | {"1110": 5, "1111": 2, "10001": 0, "100001": 11, "1000000": 12, "1000001": 13}
)
_REPEATED = 13
_PERMUTATION_CONTEXTS = 8


def skip_permutation(bits: Bits, size: int) -> None:
    """Read the order of so many sections, which does not matter here."""
    numbers = Numbers(bits, _PERMUTATION_CONTEXTS)
    count = numbers.next(min(size.bit_length(), _PERMUTATION_CONTEXTS - 1))
    if count > size:
        raise damaged("the order of a frame's sections is longer than they are")
    last = 0
    for _ in range(count):
        last = numbers.next(min(last.bit_length(), _PERMUTATION_CONTEXTS - 1))
    numbers.end()


class _Config(NamedTuple):
    """How a number becomes a token, and bits behind it."""

    split: int
    high: int
    low: int

    @classmethod
    def read(cls, bits: Bits, token_bits: int) -> "_Config":
        split = bits.next(token_bits.bit_length())
        high = low = 0
        if split != token_bits:
            high = bits.next(split.bit_length())
            low = bits.next(max(0, split - high).bit_length())
        if high + low > split:
            raise damaged("numbers of its codestream are coded in no way that there is")
        return cls(split, high, low)

    def number(self, bits: Bits, token: int) -> int:
        if token < 1 << self.split:
            return token
        inner = self.high + self.low
        length = self.split - inner + (token - (1 << self.split) >> inner)
        if length > 32:
            raise damaged("a number of its codestream is too long")
        low = token & (1 << self.low) - 1
        high = token >> self.low & (1 << self.high) - 1 | 1 << self.high
        return (high << length | bits.next(length)) << self.low | low


class Numbers:
    """Reads numbers, each in its context: their distributions come first."""

    def __init__(self, bits: Bits, contexts: int, *, copies: bool = True) -> None:
        self._bits = bits
        self._copied: list[int] = []
        self._decoded: list[int] = []
        self._first_copy = 0
        """The first token that says to copy; 0 if none does."""
        if bits.flag():
            if not copies:
                raise damaged("its codestream copies where it may not")
            self._first_copy = bits.choice((224, 0), (512, 0), (4096, 0), (8, 15))
            self._least_copied = bits.choice((3, 0), (4, 0), (5, 2), (9, 8))
            self._lengths = _Config.read(bits, 8)
            contexts += 1
        self._clusters = _read_clusters(bits, contexts) if contexts > 1 else [0]
        count = max(self._clusters) + 1
        self._prefixed = bits.flag()
        token_bits = _LONGEST_CODE if self._prefixed else 5 + bits.next(2)
        self._configs = [_Config.read(bits, token_bits) for _ in range(count)]
        self._state = _FINAL_STATE
        if self._prefixed:
            sizes = [1 + _read_variable(bits, 4) for _ in range(count)]
            if max(sizes) > 1 << token_bits:
                raise damaged("an alphabet of its codestream is too long")
            self._codes = [_read_prefix_code(bits, size) for size in sizes]
        else:
            self._tables = [_Table(_read_counts(bits), token_bits) for _ in range(count)]
            self._state = bits.next(32)

    def next(self, context: int) -> int:
        """The next number."""
        if not self._first_copy:
            cluster = self._clusters[context]
            return self._configs[cluster].number(self._bits, self._token(cluster))
        if not self._copied:
            cluster = self._clusters[context]
            token = self._token(cluster)
            if token < self._first_copy:
                self._decoded.append(self._configs[cluster].number(self._bits, token))
                return self._decoded[-1]
            self._copy(token)
        self._decoded.append(self._copied.pop())
        return self._decoded[-1]

    def _copy(self, token: int) -> None:
        length = self._lengths.number(self._bits, token - self._first_copy) + self._least_copied
        cluster = self._clusters[-1]
        distance = self._configs[cluster].number(self._bits, self._token(cluster)) + 1
        if length > _MOST_COPIED:
            raise damaged("its codestream copies more than a table has")
        source = self._decoded[-distance:] or [0]
        whole = source * -(-length // len(source))
        self._copied = whole[:length][::-1]

    def end(self) -> None:
        """Raise BadImage if what was read is not whole."""
        if self._state != _FINAL_STATE:
            raise damaged("numbers of its codestream are damaged")

    def _token(self, cluster: int) -> int:
        if self._prefixed:
            return _read_symbol(self._bits, self._codes[cluster])
        token, count, offset = self._tables[cluster].look_up(self._state & _RANGE - 1)
        self._state = count * (self._state >> _RANGE_BITS) + offset
        if self._state < 1 << 16:
            self._state = self._state << 16 | self._bits.next(16)
        return token


class _Table:
    """Finds a symbol, its count and its offset by a state: an alias table."""

    def __init__(self, counts: list[int], token_bits: int) -> None:
        size = 1 << token_bits
        if len(counts) > size:
            raise damaged("an alphabet of its codestream is too long")
        self._counts = counts + [0] * (size - len(counts))
        self._bucket_bits = _RANGE_BITS - token_bits
        bucket = 1 << self._bucket_bits
        self._cutoffs, self._others = list(self._counts), list(range(size))
        self._offsets = [0] * size
        if _RANGE in self._counts:
            self._cutoffs = [0] * size
            self._others = [self._counts.index(_RANGE)] * size
            self._offsets = [bucket * number for number in range(size)]
            return
        over = [number for number, count in enumerate(self._counts) if count > bucket]
        under = [number for number, count in enumerate(self._counts) if count < bucket]
        while over:
            full, free = over.pop(), under.pop()
            self._cutoffs[full] -= bucket - self._cutoffs[free]
            self._others[free] = full
            self._offsets[free] = self._cutoffs[full] - self._cutoffs[free]
            if self._cutoffs[full] != bucket:
                (under if self._cutoffs[full] < bucket else over).append(full)

    def look_up(self, place: int) -> tuple[int, int, int]:
        number, offset = place >> self._bucket_bits, place & (1 << self._bucket_bits) - 1
        if offset >= self._cutoffs[number]:
            offset += self._offsets[number]
            number = self._others[number]
        return number, self._counts[number], offset


def _read_clusters(bits: Bits, contexts: int) -> list[int]:
    """Which distribution each context has."""
    if bits.flag():
        length = bits.next(2)
        return [bits.next(length) for _ in range(contexts)]
    moved = bits.flag()
    numbers = Numbers(bits, 1, copies=contexts > 2)
    clusters = [numbers.next(0) for _ in range(contexts)]
    numbers.end()
    if max(clusters) >= _MOST_CLUSTERS:
        raise damaged("its codestream has too many distributions")
    return _moved_back(clusters) if moved else clusters


def _moved_back(indices: Iterable[int]) -> list[int]:
    order = list(range(_MOST_CLUSTERS))
    found = []
    for index in indices:
        found.append(order.pop(index))
        order.insert(0, found[-1])
    return found


def _read_variable(bits: Bits, length: int) -> int:
    """A number, behind its count of bits in so many bits."""
    if not bits.flag():
        return 0
    count = bits.next(length)
    return bits.next(count) + (1 << count)


def _read_symbol(bits: Bits, code: PrefixCode) -> int:
    key = 1
    while key not in code:
        if key >> _LONGEST_CODE:
            raise damaged("a prefix code of its codestream has gaps")
        key = key << 1 | bits.next(1)
    return code[key]


def _canonical(lengths: list[tuple[int, int]]) -> PrefixCode:
    """The code of symbols with these lengths: (length, symbol), in order."""
    if len(lengths) == 1:
        return {1: lengths[0][1]}
    code, at, last = {}, 0, 0
    for length, symbol in sorted(lengths, key=lambda one: one[0]):
        at <<= length - last
        code[1 << length | at] = symbol
        at, last = at + 1, length
    return code


def _read_prefix_code(bits: Bits, size: int) -> PrefixCode:
    if size == 1:
        return {1: 0}
    skipped = bits.next(2)
    if skipped == 1:
        symbols = [bits.next((size - 1).bit_length()) for _ in range(bits.next(2) + 1)]
        deep = len(symbols) == 4 and bits.flag()
        lengths = {1: (0,), 2: (1, 1), 3: (1, 2, 2), 4: (1, 2, 3, 3) if deep else (2, 2, 2, 2)}
        return _canonical(sorted(zip(lengths[len(symbols)], symbols, strict=True)))
    coded: list[tuple[int, int]] = []
    space = 32
    for symbol in _LENGTH_ORDER[skipped:]:
        if length := _read_symbol(bits, _LENGTHS):
            coded.append((length, symbol))
            space -= 32 >> length
        if space <= 0:
            break
    if not coded or (space and len(coded) > 1):
        raise damaged("a prefix code of its codestream is not complete")
    return _canonical(_read_lengths(bits, _canonical(sorted(coded)), size))


def _read_lengths(bits: Bits, code: PrefixCode, size: int) -> list[tuple[int, int]]:
    """(length, symbol) of those that have a length."""
    lengths: list[int] = []
    space, last, repeated, repeats = 1 << _LONGEST_CODE, 8, 0, 0
    while len(lengths) < size and space > 0:
        symbol = _read_symbol(bits, code)
        if symbol <= _LONGEST_CODE:
            repeats = 0
            last = symbol or last
            lengths.append(symbol)
            space -= (1 << _LONGEST_CODE >> symbol) if symbol else 0
            continue
        length = last if symbol == 16 else 0
        before = repeats if length == repeated else 0
        repeated = length
        repeats = (before - 2 << symbol - 14 if before else 0) + bits.next(symbol - 14) + 3
        lengths += [length] * (repeats - before)
        space -= (repeats - before << _LONGEST_CODE - length) if length else 0
    if space or len(lengths) > size:
        raise damaged("a prefix code of its codestream is not complete")
    return [(length, symbol) for symbol, length in enumerate(lengths) if length]


def _read_counts(bits: Bits) -> list[int]:
    """How often each symbol is, of 4096."""
    if bits.flag():
        two = bits.flag()
        counts = [0] * 256
        first = _read_variable(bits, 3)
        second = _read_variable(bits, 3) if two else first
        counts[first] = bits.next(_RANGE_BITS) if two else _RANGE
        if two:
            if first == second:
                raise damaged("a distribution of its codestream has a symbol twice")
            counts[second] = _RANGE - counts[first]
        return _without_end(counts)
    if bits.flag():
        size = _read_variable(bits, 3) + 1
        return [_RANGE // size + (number < _RANGE % size) for number in range(size)]
    length = 0
    while length < 3 and bits.flag():
        length += 1
    shift = (bits.next(length) | 1 << length) - 1
    size = _read_variable(bits, 3) + 3
    return _read_coded_counts(bits, shift, size)


def _read_coded_counts(bits: Bits, shift: int, size: int) -> list[int]:
    logs: list[int | None] = []
    """None where the one before is repeated."""
    while len(logs) < size:
        log = _read_symbol(bits, _COUNTS)
        logs += [None] * (_read_variable(bits, 3) + 4) if log == _REPEATED else [log]
    del logs[size:]
    largest = max((log for log in logs if log is not None), default=None)
    if largest is None:
        raise damaged("a distribution of its codestream has no count")
    left_out = logs.index(largest)
    counts: list[int] = []
    for number, coded in enumerate(logs):
        if coded is None:
            counts.append(counts[-1] if counts else 0)
        elif coded < 2 or number == left_out:
            counts.append(0 if number == left_out else coded)
        else:
            length = max(0, min(coded - 1, shift - (_RANGE_BITS - coded + 1 >> 1)))
            counts.append((1 << coded - 1) + (bits.next(length) << coded - 1 - length))
    counts[left_out] = _RANGE - sum(counts)
    if counts[left_out] <= 0:
        raise damaged("a distribution of its codestream has too many counts")
    return _without_end(counts)


def _without_end(counts: list[int]) -> list[int]:
    while counts and not counts[-1]:
        counts.pop()
    return counts
