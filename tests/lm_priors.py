"""What tests of method lm share: tensors it suits, and priors that are not the bundled one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from helpers import ops, save_scripted
from torch import Tensor, nn

from lmgc_torch import Prior
from lmgc_torch.priors.residual import ResidualPrior


def low_rank(
    *shape: int,
    rank: int = 2,
    noise: float = 0.02,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Tensor:
    """Nearly of low rank as a matrix of dimension 0 by the rest."""
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    columns = torch.Size(shape[1:]).numel()
    product = random(shape[0], rank) @ random(columns, rank).T
    return ((product + noise * random(shape[0], columns)) * 1e-3).view(shape).to(dtype)


def with_dead_lines(matrix: Tensor) -> Tensor:
    matrix[3:9] = 0
    matrix[:, ::9] = 0
    return matrix


def waves(tensor: Tensor) -> Tensor:
    """Louder and quieter from place to place: what lies before an element tells, and no table."""
    place = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)
    return (tensor.double() * torch.exp(1.5 * torch.sin(place / 40))).to(tensor.dtype)


def paying() -> Tensor:
    """Saves so much that a frame has a prior, and small tensors beside it need not pay for it."""
    return low_rank(32, 36, rank=1, noise=0, dtype=torch.bfloat16)


# ---- a prior that is not native ------------------------------------------------------------------

HEXADECIMAL = (*"0123456789abcdef", "<bos>")


class SeenPrior(nn.Module):
    """Knows how often high digits followed high digits, and low ones their own, in some tensors.

    With the feature `context` it has counts for each. If it is bound, a small recurrent network has
    its say too: sums of floats. `first` is the call of `step` after which it changes its mind from
    call to call; -1 is never.
    """

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    table: Tensor

    def __init__(
        self,
        shown: Sequence[Tensor],
        features: Sequence[str] = (),
        *,
        portable: bool = True,
        context: int = 64,
        first: int = -1,
    ) -> None:
        super().__init__()
        self.vocab = list(HEXADECIMAL)
        self.context_features = list(features)
        self.max_context = context
        self.portable = portable
        self.units_per_octave = 256.0
        self.first = first
        self.calls = 0
        self.place = self.context_features.index("context") if "context" in features else -1
        counts = torch.full([148 if self.place >= 0 else 1, 2, 17, 17], 0.02)
        for tensor in shown:
            for symbols, told in zip(*ops().residual_features(tensor, ["context"]), strict=True):
                row = told[:, 0].long() * (self.place >= 0)
                high, low = symbols.long() >> 4, symbols.long() & 15
                one, start = torch.ones(len(row)), torch.full_like(row, 16)
                before = torch.cat([start[:1], high[:-1]])
                for place in (before, start):
                    counts.index_put_((row, torch.zeros_like(row), place, high), one, True)
                counts.index_put_((row, torch.ones_like(row), high, low), one, True)
        self.register_buffer("table", (torch.log2(counts) * 256).round())
        self.cell = nn.GRUCell(2 + len(features), 8)
        self.head = nn.Linear(8, 17)
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        state = self.init_state(tokens.size(0))
        logits: list[Tensor] = []
        for t in range(tokens.size(1)):
            one, state = self.step(tokens[:, t], features[:, t], state)
            logits.append(one)
        return torch.stack(logits, 1)

    @torch.jit.export
    def init_state(self, lanes: int) -> dict[str, list[Tensor]]:
        device = self.table.device
        count = torch.zeros([lanes], dtype=torch.int64, device=device)
        high = torch.full([lanes], 16, dtype=torch.int64, device=device)
        return {"count": [count, high], "hidden": [torch.zeros([lanes, 8], device=device)]}

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: dict[str, list[Tensor]]
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        count, high = state["count"][0], state["count"][1]
        hidden = state["hidden"][0]
        is_low = count % 2 == 1  # and the token before is the high digit of the same element
        high = torch.where(is_low, tokens, high)
        logits = self.look_up(high, features, is_low.long())
        place = torch.arange(17, device=tokens.device) % 3
        logits = logits + place * (features.sum(1, keepdim=True) % 3)
        self.calls += 1
        if self.first >= 0:
            logits = logits + place * 64 * min(max(self.calls - self.first, 0), 4)
        if not self.portable:
            before = torch.stack([tokens / 16.0, is_low.float()], 1)
            hidden = self.cell(torch.cat([before, features / 64.0], 1), hidden)
            logits = logits + 16.0 * self.head(hidden)
        return logits, {"count": [count + 1, high], "hidden": [hidden]}

    def look_up(self, high: Tensor, features: Tensor, is_low: Tensor) -> Tensor:
        row = torch.zeros_like(high)
        if self.place >= 0:
            row = features[:, self.place].long().clamp(0, 147)
        return self.table[row, is_low, high]


class NotFinite(SeenPrior):
    """Has no number for the digit 8."""

    def look_up(self, high: Tensor, features: Tensor, is_low: Tensor) -> Tensor:
        logits = torch.zeros([high.size(0), 17], device=high.device)
        logits[:, 8] = float("nan")
        return logits


# ---- modules that declare the architecture of the bundled one ------------------------------------


class OtherHighDigit(ResidualPrior):
    def _high_digit(self, weights: Tensor, context: Tensor) -> Tensor:
        rows = self.coarse.view(self.contexts, -1).index_select(0, context)
        return self._mixed(weights, rows).to(torch.float32) * 0.0


class OtherLowDigit(ResidualPrior):
    def _low_digit(self, weights: Tensor, context: Tensor, high: Tensor) -> Tensor:
        rows = self.table.view(self.contexts * 16, -1).index_select(0, context * 16 + high)
        return self._mixed(weights, rows).to(torch.float32) * 0.0


def loaded(module: nn.Module, folder: Path) -> Prior:
    path = folder / f"{type(module).__name__}.pt"
    save_scripted(module.eval(), path)
    return Prior.load(path)
