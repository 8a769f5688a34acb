"""`ResidualPrior`: the bundled portable prior of method `lm`, which codes residual digits.

For each element, once, a network of three integer layers turns what is already known of it (the
elements around it in units of what was expected of them, its width, its prediction) into weights of
twelve components: ten distributions of the residual, and the two zeros. The distributions are
tables, one for each context, that is, for each width and place of the prediction within its bin.
The counts of the high digit are the weighted sums of the tables' sixteens, those of the low digit
the weighted sums of the table's entries that begin with that high digit: exact marginals of one
distribution.

Everything is integer-valued float32 or int32 arithmetic whose results are exact: operands of the
matrix products have at most 8 significant bits and their sums stay below 2**24, the weighted sums
below 2**31. So the logits are the same bits on every device, in any batch size and order of
summation, and with TF32 or bfloat16 matrix products. docs/prior.md has the contract.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmgc_torch.priors.model import IntegerLinear, integer_exp2, integer_log2

ROLES = (
    "left1",
    "left2",
    "left3",
    "tap_before",
    "tap",
    "tap_after",
    "tap2",
    "tap3",
    "above_left",
    "above",
    "above_right",
    "above_ahead",
    "above_behind",
    "above2",
    "above3",
    "above4",
)

CONTEXT_FEATURES = (
    "digit",
    "context",
    *(f"{role}.value" for role in ROLES),
    *(f"{role}.magnitude" for role in ROLES),
    "width",
    "fraction",
    "prediction",
    "prediction_size",
    "energy_left",
    "energy_row",
    "energy_tap",
    "energy_above",
    "adaptive",
    "adaptive_size",
    "predicted",
    "factor",
    "convolution",
    "flat",
    "rows_above",
    "tap_index",
    "column",
)

VOCAB = (*"0123456789abcdef", "<bos>")

INPUTS = len(CONTEXT_FEATURES) - 2  # of the network: all but digit and context, as they are
CONTEXTS = 124 + 24  # those of residuals with a prediction and of factors, then those without one
COMPONENTS = 10  # distributions of the residual; two more components are +0 and -0
TOP = 12  # octaves: the best component's weight is 2**12, so that the sums stay below 2**31
ONE = 1 << 15  # the sum of a distribution


class ResidualPrior(nn.Module):
    """The bundled prior of method `lm`; contract in docs/prior.md.

    Its state is (weights, context): [B, 12] int32, the weights of the current element's components,
    and [B] int64, its context.

    Args:
        hidden1: INPUTS to the first hidden layer.
        hidden2: first to second hidden layer.
        head: second hidden layer to the scores of the components, in 1/32 octave.
        table: [CONTEXTS, 16, COMPONENTS, 16] int16, each component's distribution of the symbol in
            each context, by high digit, component and low digit: what a lane needs for its second
            digit lies together. Each sums to ONE. Symbols 1 and 2, the zeros, have none.
    """

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    architecture: str  # by which other implementations of the same arithmetic know it
    contexts: int  # attributes, not constants: TorchScript writes constants in random order
    components: int
    top: int
    one: int
    table: Tensor
    coarse: Tensor

    def __init__(
        self, hidden1: IntegerLinear, hidden2: IntegerLinear, head: IntegerLinear, table: Tensor
    ) -> None:
        super().__init__()
        wide = table.to(torch.int32)
        if (
            table.shape != (CONTEXTS, 16, COMPONENTS, 16)
            or bool((wide < 0).any())
            or not bool((wide.sum((1, 3)) == ONE).all())
            or bool(wide[:, 0, :, 1:3].any())
        ):
            raise ValueError("the tables are not distributions of residuals")
        self.vocab = list(VOCAB)
        self.context_features = list(CONTEXT_FEATURES)
        self.max_context = 512  # the state is fresh at every element
        self.portable = True
        self.units_per_octave = 256.0
        self.architecture = "digit-mlp-1"
        self.contexts, self.components, self.top, self.one = CONTEXTS, COMPONENTS, TOP, ONE
        self.hidden1 = hidden1
        self.hidden2 = hidden2
        self.head = head
        self.register_buffer("table", table.to(torch.int16).contiguous())
        coarse = wide.sum(3).clamp(max=ONE - 1).transpose(1, 2)  # of high digits
        self.register_buffer("coarse", coarse.to(torch.int16).contiguous())

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Predicts both digits of all elements of windows whose digits are known.

        Args:
            tokens: [B, T] int64, the token before each position.
            features: [B, T, F] float32, what is known about each position's element.

        Returns:
            [B, T, V] float32 logits, integers in 1/256 octave.
        """
        lanes, positions = tokens.shape
        digits: list[float] = features[0, :, 0].tolist()  # the same in all lanes
        logits = features.new_zeros([lanes, positions, len(self.vocab)])
        if positions % 2 == 1 or digits != [0.0, 1.0] * (positions // 2):
            state = self.init_state(lanes)
            for t in range(positions):
                predicted, state = self.step(tokens[:, t], features[:, t], state)
                logits[:, t] = predicted
            return logits

        # Elements do not depend on each other: each is a row.
        rows = lanes * (positions // 2)
        tokens = tokens.reshape(rows, 2)
        features = features.reshape(rows, 2, features.size(2))
        by_row = logits.view(rows, 2, len(self.vocab))
        block = rows if features.is_cuda else 2048  # what stays in a CPU's cache
        for first in range(0, rows, block):
            last = min(first + block, rows)
            weights, context = self._start_element(features[first:last, 0])
            by_row[first:last, 0, :16] = self._high_digit(weights, context)
            high = tokens[first:last, 1] & 15
            by_row[first:last, 1, :16] = self._low_digit(weights, context, high)
        return logits

    @torch.jit.export
    def init_state(self, lanes: int) -> tuple[Tensor, Tensor]:
        """Returns the state before a window."""
        device = self.table.device
        weights = torch.zeros([lanes, self.components + 2], dtype=torch.int32, device=device)
        return weights, torch.zeros([lanes], dtype=torch.int64, device=device)

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Predicts the next digit of every lane.

        Args:
            tokens: [B] int64, the token before.
            features: [B, F] float32, what is known about the digit's element.
            state: what `init_state` or the last step returned.

        Returns:
            [B, V] float32 logits, integers in 1/256 octave, and the next state.
        """
        weights, context = state
        if bool(features[0, 0] == 0.0):  # the same in all lanes
            weights, context = self._start_element(features)
            logits = self._high_digit(weights, context)
        else:
            logits = self._low_digit(weights, context, tokens & 15)
        return F.pad(logits, [0, len(self.vocab) - 16]), (weights, context)

    def _start_element(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the network: features [B, F] to the components' weights and the contexts."""
        x = self.hidden1(features[:, 2:]).clamp_(0.0, 127.0)
        x = self.hidden2(x).clamp_(0.0, 127.0)
        score = self.head(x)
        weights = integer_exp2(score, self.top)
        lost = score.amax(1, keepdim=True) - score >= float(self.top * 32)
        weights = weights.masked_fill_(lost, 0.0).to(torch.int32)
        context = features[:, 1].to(torch.int64).clamp_(0, self.contexts - 1)
        return weights, context

    def _high_digit(self, weights: Tensor, context: Tensor) -> Tensor:
        """16 logits."""
        rows = self.coarse.view(self.contexts, -1).index_select(0, context)
        count = self._mixed(weights, rows)
        k = self.components
        count[:, 0] += (weights[:, k] + weights[:, k + 1]) * self.one
        return integer_log2((count >> 8).to(torch.float32).add_(1.0))

    def _low_digit(self, weights: Tensor, context: Tensor, high: Tensor) -> Tensor:
        """16 logits; `high` [B] is the digit before."""
        rows = self.table.view(self.contexts * 16, -1).index_select(0, context * 16 + high)
        count = self._mixed(weights, rows)
        zeros = weights[:, self.components :] * self.one
        count[:, 1:3] += zeros.masked_fill_((high != 0).unsqueeze(1), 0)
        return integer_log2((count >> 8).to(torch.float32).add_(1.0))

    def _mixed(self, weights: Tensor, rows: Tensor) -> Tensor:
        """The weighted sums [B, 16] of the components' rows, [B, COMPONENTS * 16]."""
        wide = rows.to(torch.int32).view(-1, self.components, 16)
        count = wide[:, 0] * weights[:, :1]
        for k in range(1, self.components):
            count.addcmul_(wide[:, k], weights[:, k : k + 1])
        return count
