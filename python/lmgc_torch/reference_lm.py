"""Method `lm` of `lmgc_torch.reference`: docs/format.md, section 12.

The residual digits of methods `scale` and `lowrank`, coded with the probabilities of a causal
language model. Integers only; the model and the coder of its digits are those of method `lmgc`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from lmgc_torch.errors import PriorMismatchError
from lmgc_torch.reference_common import (
    WHOLE,
    BitReader,
    ByteReader,
    ElementType,
    Matrix,
    Spare,
    refuse,
)
from lmgc_torch.reference_factors import Factor, join_factor
from lmgc_torch.reference_fixed import Bin, Section, join
from lmgc_torch.reference_mixture import (
    EDGE,
    ESCAPE,
    MINUS_ZERO,
    ORIGIN,
    QUARTERS,
    VARIES,
    ZERO,
    context_of,
)

__all__: list[str] = []  # for the reference only

PREDICTED = 32  # flag
SCALE, LOWRANK, FACTOR = range(3)  # kinds of symbols


class Coder(Protocol):
    """Decodes the digits of a lane."""

    def decode(self, frequencies: Sequence[int]) -> int: ...


class Model(Protocol):
    """The prior over one lane at a time."""

    names: list[str]

    def start_window(self) -> None: ...

    def predict(self, features: dict[str, int]) -> None: ...

    def frequencies(self) -> list[int]: ...

    def see(self, value: int) -> None: ...


# ---- what is known of an element -----------------------------------------------------------------


class Known(NamedTuple):
    """What both sides know of an element before its digits."""

    kind: int
    width: int  # quarter octaves
    fraction: int = 0  # 32nds of a bin
    level: int = 0  # of the prediction, next to the scale; quarter octaves

    @property
    def context(self) -> int:
        if self.kind == SCALE:
            return 124 + context_of(self.width, 0, EDGE)
        return context_of(self.width, self.fraction, VARIES)


def clamp(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)


def level_of(value: int, exponent: int, scale: int) -> int:
    if value == 0:
        return 0
    leading = abs(value).bit_length() - 1
    two = (abs(value) << 2 >> leading) % 4
    level = clamp(4 * (leading + exponent) + two - scale + 24, 0, 63)
    return level if value > 0 else -level


# ---- marks ---------------------------------------------------------------------------------------

NO_MARK = -128  # of zeros: neither value nor magnitude
MAGNITUDES = [round(8 * math.log2(1 + i)) for i in range(128)]


def mark_of(symbol: int, known: Known) -> int:
    """Returns how far off its prediction an element was, 16 for its width."""
    if symbol in (ZERO, MINUS_ZERO):
        return NO_MARK
    if symbol == ESCAPE:
        return 127
    off = 32 * (symbol - ORIGIN) + 16 - known.fraction
    octaves, quarter = divmod(known.width, 4)
    down = 31 + octaves
    mark = min((abs(off) * QUARTERS[quarter] + (1 << (down - 1))) >> down, 127)
    return mark if off >= 0 else -mark


def value_of(mark: int) -> int:
    return 0 if mark == NO_MARK else mark


def magnitude_of(mark: int) -> int:
    return -32 if mark == NO_MARK else MAGNITUDES[abs(mark)]


# ---- geometry ------------------------------------------------------------------------------------


class Geometry:
    """Where the elements around one lie.

    Attributes:
        columns: Of the coded matrix.
        taps: Of a convolution's kernel; 1 if there is none.
        flat: Whether the tensor is seen as flat.
        offsets: How many elements back each role lies.
    """

    def __init__(self, columns: int, taps: int = 1, flat: bool = False) -> None:
        if flat or not 2 <= taps <= 64 or columns % taps != 0 or columns <= taps:
            taps = 1
        self.columns, self.taps, self.flat = columns, taps, flat
        c, p = columns, taps
        self.offsets = {"left1": 1, "left2": 2, "left3": 3}
        if p > 1:
            self.offsets |= {"tap_before": p - 1, "tap": p, "tap_after": p + 1}
            self.offsets |= {"tap2": 2 * p, "tap3": 3 * p}
        else:
            self.offsets |= {"tap_before": 4, "tap": 5, "tap_after": 6, "tap2": 7, "tap3": 8}
        self.offsets |= {"above_left": c + 1, "above": c, "above_right": c - 1}
        ahead = p if p > 1 else 2
        self.offsets |= {"above_ahead": c - ahead, "above_behind": c + ahead}
        self.offsets |= {"above2": 2 * c, "above3": 3 * c, "above4": 4 * c}


# ---- features ------------------------------------------------------------------------------------

START = 416  # of energies: what they are near


class Lane:
    """Features of a lane's elements: `features` and `see` by turns.

    Args:
        geometry: Of the coded matrix.
        first: The index of the lane's first element in it.
    """

    def __init__(self, geometry: Geometry, first: int) -> None:
        self.geometry, self.first = geometry, first
        self.marks: list[int] = []
        self.fast = self.slow = self.ahead = START
        self.taps = [START] * geometry.taps
        self.coefficients = [dict.fromkeys(geometry.offsets, 0) for _ in range(geometry.taps)]

    def features(self, known: Known) -> dict[str, int]:
        columns, taps = self.geometry.columns, self.geometry.taps
        position = len(self.marks)
        column = (self.first + position) % columns
        if columns >= 9 and position >= columns - 8:
            magnitude = magnitude_of(self.marks[position - (columns - 8)])
            self.ahead += (16 * magnitude - self.ahead) >> 3

        self.values = {}
        features = {"context": known.context}
        for role, offset in self.geometry.offsets.items():
            there = 1 <= offset <= position
            mark = self.marks[position - offset] if there else 0
            self.values[role] = value_of(mark)
            features[f"{role}.value"] = self.values[role]
            features[f"{role}.magnitude"] = magnitude_of(mark) if there else 26
        own = self.coefficients[column % taps]
        sum_ = sum(own[role] * value for role, value in self.values.items())
        self.adaptive = clamp((sum_ + 2**13) >> 14, -127, 127)
        tap_energy = self.taps[column % taps] if taps > 1 else START
        return features | {
            "width": 8 * known.width,
            "fraction": 0 if known.kind == SCALE else 4 * known.fraction - 62,
            "prediction": 2 * known.level,
            "prediction_size": 2 * abs(known.level),
            "energy_left": self.fast >> 4,
            "energy_row": self.slow >> 4,
            "energy_tap": tap_energy >> 4,
            "energy_above": self.ahead >> 4,
            "adaptive": self.adaptive,
            "adaptive_size": MAGNITUDES[abs(self.adaptive)],
            "predicted": 64 if known.kind == LOWRANK else 0,
            "factor": 64 if known.kind == FACTOR else 0,
            "convolution": 64 if taps > 1 else 0,
            "flat": 64 if self.geometry.flat else 0,
            "rows_above": 24 * min(position // columns, 4),
            "tap_index": column % taps * (64 // taps) if taps > 1 else 0,
            "column": 16 * min(column, 7),
        }

    def see(self, symbol: int, known: Known) -> None:
        mark, taps = mark_of(symbol, known), self.geometry.taps
        if symbol not in (ZERO, MINUS_ZERO):
            error = clamp(value_of(mark) - self.adaptive, -64, 64)
            own = self.coefficients[(self.first + len(self.marks)) % self.geometry.columns % taps]
            slowness = 4 if taps == 1 else 2 if known.kind == FACTOR else 3
            for role, value in self.values.items():
                own[role] = clamp(own[role] + ((error * value) >> slowness), -32767, 32767)
        energy = 16 * magnitude_of(mark)
        self.fast += (energy - self.fast) >> 3
        self.slow += (energy - self.slow) >> 5
        if self.geometry.taps > 1:
            tap = (self.first + len(self.marks)) % self.geometry.columns % self.geometry.taps
            self.taps[tap] += (energy - self.taps[tap]) >> 3
        self.marks.append(mark)


FEATURES = {"digit", *Lane(Geometry(1), 0).features(Known(SCALE, 0))}


# ---- streams -------------------------------------------------------------------------------------


class Stream:
    """Reads its head when it is made; `decode` reads the body."""

    def __init__(self, fields: ByteReader, symbols: int) -> None:
        lane_elements = fields.varint()
        if not 1 <= lane_elements <= 2**16:
            refuse("the lanes' length is out of its range")
        if -(-symbols // lane_elements) > fields.left():
            refuse("the bytes end too early")
        firsts = range(0, symbols, lane_elements)
        self.lanes = [(first, min(symbols, first + lane_elements)) for first in firsts]
        self.sizes = [fields.varint() for _ in self.lanes]
        for (first, end), size in zip(self.lanes, self.sizes, strict=True):
            if 2 * (end - first) > (size + 4) * 8 * 3029 or size > 4 * (end - first) + 2:
                refuse("a lane is too short or too long for its symbols")
        self.tails = [fields.varint() for _ in range(0, symbols, 65536)]
        if any(size > 16 * 65536 for size in self.tails):
            refuse("a block is larger than its symbols allow")

    def decode(
        self,
        fields: ByteReader,
        geometry: Geometry,
        known: Sequence[Known],
        model: Model,
        window: int,
        coder: Callable[[bytes], Coder],
    ) -> Iterator[tuple[int, BitReader]]:
        """Yields each symbol and the bits of which the next ones are its tail.

        It has to be asked until it ends: what is wrong at the end of a block is found there.
        """
        symbols = []
        for (first, end), size in zip(self.lanes, self.sizes, strict=True):
            digits = coder(fields.take(size))
            lane = Lane(geometry, first)
            for index in range(first, end):
                if (index - first) % window == 0:
                    model.start_window()
                features = lane.features(known[index])
                symbol = 0
                for digit in (0, 1):
                    model.predict({**features, "digit": digit})
                    value = digits.decode(model.frequencies())
                    model.see(value)
                    symbol = 16 * symbol + value
                lane.see(symbol, known[index])
                symbols.append(symbol)
        for number, size in enumerate(self.tails):
            bits = BitReader(ByteReader(fields.take(size)))
            for symbol in symbols[65536 * number : 65536 * (number + 1)]:
                yield symbol, bits
            bits.end()


# ---- section -------------------------------------------------------------------------------------


class LmSection(Section):
    """Reads everything but the bodies when it is made; `decode` reads those.

    Args:
        section: Its bytes.
        sizes: Of its tensor.
        element: Its tensor's type.
        model: The prior.
        max_context: Of the prior, in tokens.
        coder: Decodes the digits of a lane.
        spare: Of its tensor's elements.
    """

    def __init__(
        self,
        section: bytes,
        sizes: Sequence[int],
        element: ElementType,
        model: Model,
        max_context: int,
        coder: Callable[[bytes], Coder],
        spare: Spare = WHOLE,
    ) -> None:
        fields = ByteReader(section)
        flags = fields.unsigned(1)
        if flags > 63:
            refuse("flags that are unknown")
        predicted = bool(flags & PREDICTED)
        super().__init__(fields, flags % PREDICTED, sizes, element, predicted, spare)
        unknown = set(model.names) - FEATURES
        if unknown:
            raise PriorMismatchError(f"method lm has no context feature {unknown.pop()!r}")
        self.model, self.coder = model, coder
        self.window = clamp(max_context // 2, 1, 65536)
        if self.elements == 0:
            return
        if self.low_rank:
            rows, columns, rank = len(self.live_rows), len(self.live_columns), self.low_rank.rank
            self.u_stream = Stream(fields, rank * rows)
            self.v_stream = Stream(fields, rank * columns)
        self.residual_stream = Stream(fields, self.elements)

    def decode(self) -> bytes:
        if self.elements == 0:
            return self.tensor([])
        taps = math.prod(self.sizes[2:]) if len(self.sizes) >= 3 else 1
        columns = len(self.live_columns)
        if self.low_rank:
            self.read_factor(self.low_rank.u, self.u_stream, 1)
            self.read_factor(self.low_rank.v, self.v_stream, taps)
            self.low_rank.prepare()
        places = [divmod(i, columns) for i in range(self.elements)]
        bins = [self.bin_of(row, column) for row, column in places]
        known = [self.known(*place, own) for place, own in zip(places, bins, strict=True)]
        geometry = Geometry(columns, taps, Matrix(self.sizes).flat)
        decoded = self.symbols(self.residual_stream, geometry, known)
        words = [join(symbol, bins[i], self.form, tail) for i, (symbol, tail) in enumerate(decoded)]
        return self.tensor(words)

    def read_factor(self, factor: Factor, stream: Stream, taps: int) -> None:
        """The coded matrix has a row for each component."""
        shapes = [factor.shape(i, c) for c in range(factor.rank) for i in range(factor.lines)]
        known = [Known(FACTOR, clamp(width, -16, 15), 16) for width, _ in shapes]
        entries: list[int] = []
        for symbol, tail in self.symbols(stream, Geometry(factor.lines, taps), known):
            entries.append(join_factor(symbol, 0, shapes[len(entries)][1], tail))
        factor.entries = [entries[i :: factor.lines] for i in range(factor.lines)]

    def known(self, row: int, column: int, own: Bin) -> Known:
        width = clamp(own.width, -16, 15)
        if self.low_rank is None:
            return Known(SCALE, width)
        value, exponent = self.low_rank.prediction(row, column)
        level = level_of(value, exponent, self.scale(row, column))
        return Known(LOWRANK, width, own.fraction, level)

    def symbols(
        self, stream: Stream, geometry: Geometry, known: Sequence[Known]
    ) -> Iterator[tuple[int, BitReader]]:
        return stream.decode(self.fields, geometry, known, self.model, self.window, self.coder)
