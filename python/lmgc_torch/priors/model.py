"""`HexPrior`: the bundled portable prior, a small network that speaks hexadecimal digits.

For each element, once, a network of three integer layers turns what is already known (the decoded
neighbours, relative to the scale both sides know) into weights of 66 bins: two signs times {zero,
32 exponents around the scale}. Every hex digit of the element is then a range of bins: its count is
a difference of cumulative weights, whatever the float format and the digits before it.

Everything is integer-valued float32 or int32 arithmetic whose results are exact (operands of the
matrix products have at most 8 significant bits, sums stay below 2**24) and nothing calls a
mathematical library. So the logits are the same bits on every device, in any batch size and order
of summation, and with TF32 or bfloat16 matrix products. docs/prior.md has the contract.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBOURS = (
    "left1",
    "left2",
    "left3",
    "left4",
    "tap_before",
    "tap",
    "tap_after",
    "tap2",
    "tap3",
    "above_before",
    "above",
    "above_after",
    "above_tap_after",
    "above2",
    "above_tap_before",
    "above2_tap",
)

CONTEXT_FEATURES = (
    "digit",
    "exponent_bits",
    "mantissa_bits",
    "reference",
    "taps",
    "flat",
    *(f"{name}.level" for name in NEIGHBOURS),
    *(f"{name}.value" for name in NEIGHBOURS),
)

VOCAB = (*"0123456789abcdef", "<bos>", " ", ",", ", ", ";", "0x")

INPUTS = 5 * len(NEIGHBOURS) + 4  # of the network, see `network_inputs`
OCTAVES_BELOW, OCTAVES_ABOVE = 23, 8  # exponents with a bin of their own, around the scale
BINS = 1 + OCTAVES_BELOW + 1 + OCTAVES_ABOVE  # of one sign; bin 0 is zero and the subnormals
UNITS = 32  # of a bin's score, in an octave
TOP = 17  # octaves: the best bin's weight is 2**17, so that 66 of them stay below 2**24
SLOPES = 33  # of the density within an octave, in half octaves


def network_inputs(features: Tensor) -> Tensor:
    """Turns context features [B, F] into the network's inputs: integers [B, INPUTS], +-127."""
    n = 16  # len(NEIGHBOURS)
    level = features[:, 6 : 6 + n]
    value = features[:, 6 + n : 6 + 2 * n]
    reference, taps, flat = features[:, 3:4], features[:, 4:5], features[:, 5:6]
    return torch.cat(
        [
            level.clamp(min=-63.0),
            value,
            value.abs(),
            (level == -64.0).to(torch.float32) * 32.0,  # zero
            ((level == 0.0) & (value == 0.0)).to(torch.float32) * 32.0,  # outside the lane
            (reference - (reference * 0.125).floor() * 8.0) * 8.0,  # within the octave
            (features[:, 2:3] == 7.0).to(torch.float32) * 32.0,  # bfloat16
            taps * 4.0,
            flat * 64.0,
        ],
        1,
    )


class IntegerLinear(nn.Module):
    """A linear layer on integers within +-128: floor((weight x + bias) * 2**-shift).

    Args:
        weight: [out, in], integers within +-127.
        bias: [out], integers.
        shift: [out], integers >= 0.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, shift: Tensor) -> None:
        super().__init__()
        if weight.abs().max() > 127 or (weight.abs().sum(1) * 128 + bias.abs()).max() >= 2**24:
            raise ValueError("the layer's sums could reach 2**24, where float32 stops being exact")
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())
        self.register_buffer("scale", torch.exp2(-shift.float()))

    def forward(self, x: Tensor) -> Tensor:
        """Maps integers [B, in] to integers [B, out]."""
        return F.linear(x, self.weight, self.bias).mul_(self.scale).floor_()


def integer_exp2(score: Tensor, top: int = TOP, units: int = UNITS) -> Tensor:
    """Weights of scores (in 1/32 octave): piecewise linear, integers from 1 to 2**TOP."""
    best = score.amax(1, keepdim=True)
    above = (score - best).add_(float(top * units)).clamp_(min=0.0)
    bits = (above.to(torch.int32) + 127 * units) << 18  # exponent and 5 fraction bits of a float32
    return torch.view_copy(bits, dtype=torch.float32).floor_()


def integer_log2(count: Tensor) -> Tensor:
    """log2 of integers 1 <= count < 2**25 in 1/256 octave, within one unit, as float32 integers."""
    bits = torch.view_copy(count, dtype=torch.int32)
    fraction = (bits >> 11) & 4095
    # log2(1 + f) - f, about f (1 - f) (0.4209 - 0.1564 f), in 1/4096 octave
    bend = (((fraction * (4096 - fraction)) >> 6) * (6895 - ((fraction * 2562) >> 12))) >> 20
    return (((bits >> 11) - (127 << 12) + bend + 8) >> 4).to(torch.float32)


class HexPrior(nn.Module):
    """The bundled prior; contract in docs/prior.md.

    Its state is ([cumulative, score, base, prefix], [ordered, expected, pending]):

    - cumulative [B, 2 BINS + 1] float32: running sums of the current element's bin weights, first
      those of the positive sign, then those of the negative one;
    - score [B, 2 BINS] float32: their logarithms, in 1/32 octave;
    - base [B, 1] int64: the exponent field of the element's scale;
    - prefix [B, 1] int64: the digits of the element seen so far, as a number;
    - ordered: 1 until digits come in another order than most significant first (little-endian
      text); from then on only first digits are predicted, as nothing is known of the others;
    - expected: the index of the element's next digit;
    - pending: 1 if the next token is a digit that belongs to the prefix.

    Args:
        hidden1: INPUTS to the first hidden layer.
        hidden2: first to second hidden layer.
        head: second hidden layer to the 2 BINS scores.
        mantissa: [BINS + 1, SLOPES, 8], 256 log2 of the probability of the three top mantissa bits
            in each bin, by how steeply the scores rise there; the last row is bin 0 of float16.
    """

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    bins: int  # attributes, not constants: TorchScript writes constants in random order
    below: int
    slopes: int
    mantissa: Tensor
    mantissa2: Tensor

    def __init__(
        self, hidden1: IntegerLinear, hidden2: IntegerLinear, head: IntegerLinear, mantissa: Tensor
    ) -> None:
        super().__init__()
        self.vocab = list(VOCAB)
        self.context_features = list(CONTEXT_FEATURES)
        self.max_context = 192  # 64 elements of three digits; the state is fresh at every element
        self.portable = True
        self.units_per_octave = 256.0
        self.bins, self.below, self.slopes = BINS, OCTAVES_BELOW, SLOPES
        self.hidden1 = hidden1
        self.hidden2 = hidden2
        self.head = head
        rows = mantissa.reshape(-1, 8).float()
        pairs = torch.exp2(rows.double() / 256).reshape(-1, 4, 2).sum(2)
        self.register_buffer("mantissa", rows)
        self.register_buffer("mantissa2", (torch.log2(pairs) * 256).round().float())

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Predicts all digits of windows whose digits are known.

        Args:
            tokens: [B, T] int64, the token before each position.
            features: [B, T, F] float32, what is known about each position's element.

        Returns:
            [B, T, V] float32 logits, integers in 1/256 octave.
        """
        lanes, positions = tokens.shape
        plan: list[list[float]] = features[0, :, :3].tolist()  # the same in all lanes
        exponent_bits, mantissa_bits = int(plan[0][1]), int(plan[0][2])
        digits = [int(position[0]) for position in plan]
        period = self._period(digits, exponent_bits)

        # Elements do not depend on each other: each becomes a row. Where the digits have no period
        # the lanes are the rows, one step a position.
        rows = lanes * (positions // period)
        features = features.reshape(rows, period, features.size(2))
        tokens = tokens.reshape(rows, period)
        logits = features.new_zeros([rows, period, len(self.vocab)])
        block = rows if features.is_cuda else 2048  # what stays in a CPU's cache
        for first in range(0, rows, block):
            last = min(first + block, rows)
            state = self.init_state(0)
            for i in range(period):
                predicted, state = self._predict(
                    tokens[first:last, i],
                    features[first:last, i],
                    state,
                    digits[i],
                    exponent_bits,
                    mantissa_bits,
                )
                logits[first:last, i] = predicted
        return logits.view(lanes, positions, -1)

    def _period(self, digits: list[int], exponent_bits: int) -> int:
        """The positions of one element, if all elements look like the first; else all positions."""
        positions = len(digits)
        period = 1
        while period < positions and digits[period] != 0:
            period += 1
        if digits[0] != 0 or positions % period != 0:
            return positions
        expected = 0
        for t in range(positions):
            if digits[t] != digits[t % period]:
                return positions
            if t < period and 0 <= 4 * digits[t] <= exponent_bits:
                if digits[t] != expected:
                    return positions
                expected += 1
        return period

    @torch.jit.export
    def init_state(self, lanes: int) -> tuple[list[Tensor], list[int]]:
        """Returns the state before a window."""
        device = self.mantissa.device
        tensors = [
            torch.zeros([lanes, 2 * self.bins + 1], device=device),
            torch.zeros([lanes, 2 * self.bins], device=device),
            torch.zeros([lanes, 1], dtype=torch.int64, device=device),
            torch.zeros([lanes, 1], dtype=torch.int64, device=device),
        ]
        return tensors, [1, 0, 0]

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: tuple[list[Tensor], list[int]]
    ) -> tuple[Tensor, tuple[list[Tensor], list[int]]]:
        """Predicts the next digit of every lane.

        Args:
            tokens: [B] int64, the token before.
            features: [B, F] float32, what is known about the digit's element.
            state: what `init_state` or the last step returned.

        Returns:
            [B, V] float32 logits, integers in 1/256 octave, and the next state.
        """
        plan: list[float] = features[0, :3].tolist()  # the same in all lanes
        return self._predict(tokens, features, state, int(plan[0]), int(plan[1]), int(plan[2]))

    def _predict(
        self,
        tokens: Tensor,
        features: Tensor,
        state: tuple[list[Tensor], list[int]],
        digit: int,
        exponent_bits: int,
        mantissa_bits: int,
    ) -> tuple[Tensor, tuple[list[Tensor], list[int]]]:
        element, order = state
        cumulative, score, base, prefix = element
        ordered, expected, pending = order
        if pending == 1:
            prefix = (prefix << 4) + (tokens.unsqueeze(1) & 15)
            pending = 0

        # A separator, a digit of mantissa bits alone, or a type that is no float.
        known = digit >= 0 and 4 * digit <= exponent_bits and exponent_bits > 0
        if known and digit != 0 and digit != expected:
            ordered = 0
        if not known or (digit != 0 and ordered == 0):
            logits = features.new_zeros([features.size(0), len(self.vocab)])
            return logits, ([cumulative, score, base, prefix], [ordered, expected, pending])

        if digit == 0:
            cumulative, score, base = self._start_element(features)
            prefix = torch.zeros_like(base)
            logits = self._first_digit(cumulative, base, exponent_bits)
        elif 4 * digit + 3 <= exponent_bits:
            logits = self._exponent_digit(cumulative, base, prefix, digit, exponent_bits)
        else:
            logits = self._mixed_digit(
                cumulative, score, base, prefix, digit, exponent_bits, mantissa_bits
            )
        logits = F.pad(logits, [0, len(self.vocab) - 16])
        return logits, ([cumulative, score, base, prefix], [ordered, digit + 1, 1])

    def _start_element(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the network: features [B, F] to an element's cumulative weights, scores and base."""
        x = network_inputs(features)
        x = self.hidden1(x).clamp_(0.0, 127.0)
        x = self.hidden2(x).clamp_(0.0, 127.0)
        score = self.head(x)
        cumulative = F.pad(integer_exp2(score).cumsum(1), [1, 0])
        return cumulative, score, features[:, 3:4].to(torch.int64) >> 3

    def _first_digit(self, cumulative: Tensor, base: Tensor, exponent_bits: int) -> Tensor:
        """Sign and three exponent bits: 16 logits."""
        edges = torch.arange(9, device=base.device) << (exponent_bits - 3)
        below = self._bins_below(edges, base)  # [B, 9]
        positive = cumulative.gather(1, below).diff(dim=1)
        negative = cumulative.gather(1, below + self.bins).diff(dim=1)
        return integer_log2(torch.cat([positive, negative], 1) + 1.0)

    def _exponent_digit(
        self, cumulative: Tensor, base: Tensor, prefix: Tensor, digit: int, exponent_bits: int
    ) -> Tensor:
        """Four exponent bits: 16 logits."""
        sign = prefix >> (4 * digit - 1)
        above = prefix - (sign << (4 * digit - 1))  # the exponent bits before
        edges = (above << 4) + torch.arange(17, device=base.device)
        edges = edges << (exponent_bits - 4 * digit - 3)
        below = self._bins_below(edges, base) + sign * self.bins  # [B, 17]
        return integer_log2(cumulative.gather(1, below).diff(dim=1) + 1.0)

    def _mixed_digit(
        self,
        cumulative: Tensor,
        score: Tensor,
        base: Tensor,
        prefix: Tensor,
        digit: int,
        exponent_bits: int,
        mantissa_bits: int,
    ) -> Tensor:
        """The last one or two exponent bits, then the top mantissa bits: 16 logits."""
        bits = exponent_bits - 4 * digit + 1
        sign = prefix >> (4 * digit - 1)
        above = prefix - (sign << (4 * digit - 1))
        edges = (above << bits) + torch.arange((1 << bits) + 1, device=base.device)
        below = self._bins_below(edges, base) + sign * self.bins
        exponent = integer_log2(cumulative.gather(1, below).diff(dim=1) + 1.0)  # [B, 2**bits]

        # The scores of the bins on both sides tell the slope of the density within an octave.
        edges = edges[:, :-1]
        row = (edges - base + (self.below + 1)).clamp(1, self.bins - 1) * (edges > 0)  # the bin
        rise = score.gather(1, (row + 1).clamp(max=self.bins - 1) + sign * self.bins)
        rise = rise - score.gather(1, (row - 1).clamp(min=1) + sign * self.bins)
        slope = (rise.clamp(-256.0, 256.0) * 0.0625 + 16.5).floor().to(torch.int64)
        if mantissa_bits == 10:
            row = torch.where(row == 0, self.bins, row)
        table = self.mantissa if bits == 1 else self.mantissa2
        mantissa = table.index_select(0, (row * self.slopes + slope).flatten())
        return (exponent.unsqueeze(2) + mantissa.view(row.size(0), row.size(1), -1)).flatten(1)

    def _bins_below(self, exponent: Tensor, base: Tensor) -> Tensor:
        """Counts the bins of one sign that lie below an exponent field."""
        return (exponent - base + (self.below + 1)).clamp(1, self.bins) * (exponent > 0)
