"""The priors of golden frames of method lm: one that is nothing special, and a native one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmgc_torch.priors.model import IntegerLinear
from lmgc_torch.priors.residual import CONTEXT_FEATURES, ResidualPrior
from lmgc_torch.reference_mixture import EDGE, VARIES, shape_of

# ---- any module ----------------------------------------------------------------------------------


class GoldenDigits(nn.Module):
    """Counts of each digit by context, shifted by all features and by the place in the window.

    Integers without the architecture of the bundled prior: it runs as TorchScript.

    Args:
        counted: Symbols and contexts to count, each int64 [n].
    """

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    table: Tensor

    def __init__(self, counted: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.vocab = ["<bos>", *"0123456789abcdef"]
        self.context_features = list(reversed(CONTEXT_FEATURES))  # in an order of its own
        self.max_context = 42
        self.portable = True
        self.units_per_octave = 8.0
        counts = torch.full([55, 17, 16], 0.05)
        for symbol, context in counted:
            row, high = self.row_of(context), symbol >> 4
            counts.index_put_((row, torch.full_like(row, 16), high), torch.ones(len(row)), True)
            counts.index_put_((row, high, symbol & 15), torch.ones(len(row)), True)
        self.register_buffer("table", (torch.log2(counts) * 8).round().to(torch.int8))

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        place = torch.arange(tokens.size(1), device=tokens.device)
        return self.look_up(tokens, features, place.expand_as(tokens))

    @torch.jit.export
    def init_state(self, lanes: int) -> list[Tensor]:
        return [torch.zeros([lanes], dtype=torch.int64, device=self.table.device)]

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        return self.look_up(tokens, features, state[0]), [state[0] + 1]

    def look_up(self, tokens: Tensor, features: Tensor, place: Tensor) -> Tensor:
        """`place`: of the digit in its window."""
        context, digit = features[..., -2].long(), features[..., -1]
        row = self.row_of(context.clamp(0, 147))
        high = torch.where(digit == 1.0, (tokens - 1).clamp(0, 15), torch.full_like(tokens, 16))
        weights = torch.arange(features.size(-1), device=features.device) % 3 + 1
        shift = ((features * weights).sum(-1).long() + place // 2) % 3
        uneven = torch.arange(16, device=features.device) % 2
        logits = self.table[row, high].float() + uneven * shift.unsqueeze(-1)
        return nn.functional.pad(logits, [1, 0])

    def row_of(self, context: Tensor) -> Tensor:
        return torch.where(context < 124, context // 4, context - 93)


# ---- the architecture of the bundled prior -------------------------------------------------------


SHIFT = 6
# Scores of the components in 1/32 octave, before the network has its say.
LIKELY = (-300, -300, -270, -180, 0, 30, -100, -390, -460, -520, -350, -360)


def residual_prior(numbers: Sequence[int]) -> ResidualPrior:
    """A prior of architecture digit-mlp-1 made of given numbers, by integers alone.

    It is built whenever it is needed instead of being kept in a file: its tables are large, and its
    fingerprint depends on its numbers alone.

    Args:
        numbers: Of 32 random bits; 4000 are enough.
    """
    more = iter(numbers)

    def layer(outputs: int, inputs: int, most: int, bias: Sequence[int]) -> IntegerLinear:
        weight = [next(more) % (2 * most + 1) - most for _ in range(outputs * inputs)]
        shape, shift = (outputs, inputs), torch.full([outputs], SHIFT)
        return IntegerLinear(torch.tensor(weight).view(shape), torch.tensor(bias), shift)

    hidden1 = layer(16, 49, 60, [next(more) % 8000 - 1000 for _ in range(16)])
    hidden2 = layer(16, 16, 60, [next(more) % 4000 - 1000 for _ in range(16)])
    head = layer(12, 16, 4, [score << SHIFT for score in LIKELY])
    table = torch.zeros(148, 10, 256, dtype=torch.int32)
    for context in range(148):
        for component in range(10):
            table[context, component] = torch.tensor(distribution(context, component))
    return ResidualPrior(hidden1, hidden2, head, table.view(148, 10, 16, 16).transpose(1, 2))


def distribution(context: int, component: int) -> list[int]:
    """256 counts that sum to 2**15: a bell, wider for later components, the last one off center."""
    width, fraction = shape_of(context - 124, EDGE) if context >= 124 else shape_of(context, VARIES)
    # In 1/32 bins, from a quarter of the width to nearly five of them.
    part = (64, 76, 91, 108)[width % 4] * (4, 6, 8, 11, 14, 17, 22, 32, 50, 76)[component]
    spread = max((part << (width // 4 + 4)) >> 9, 1)
    middle = 16 - fraction + (spread if component == 9 else 0)
    bells = [0] * 256
    for symbol in range(3, 256):
        off = 32 * (symbol - 129) + middle
        down = off * off * 23 // (spread * spread)  # 1/32 octaves: 32 / (2 ln 2) of a square
        if down < 32 * 24:
            bells[symbol] = (64 - down % 32) << (24 - down // 32)  # linear between powers of two
    bells[129] += 1
    bells[0] = max(sum(bells) >> 12, 1)
    total = sum(bells)
    counts = [bell * 32768 // total for bell in bells]
    largest = counts.index(max(counts))
    counts[largest] += 32768 - sum(counts)
    if counts[largest] == 32768:
        counts[largest], counts[0] = 32767, 1
    return counts
