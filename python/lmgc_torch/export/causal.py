"""What the exported architectures share: the contract of docs/prior.md around a decoder.

A decoder is a stack of pre-norm residual blocks, x + attention(norm(x)) and x + mlp(norm(x)). An
architecture brings its embedding, norms, MLP and rotation of queries and keys; see gpt2.py and
llama.py. All modules are compiled by TorchScript.

Shapes: B lanes, T positions, C width, H heads of queries, K heads of keys and values, D their
width, V tokens of the prior's vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "Block", "CausalPrior", "Unrotated", "frozen"]


def frozen(tensor: Tensor) -> nn.Parameter:
    """Makes a parameter that is not trained; the prior's fingerprint covers it."""
    return nn.Parameter(tensor.contiguous(), requires_grad=False)


class Unrotated(nn.Module):
    """Queries and keys as they are: positions are told otherwise."""

    def forward(self, x: Tensor, first: int) -> Tensor:
        """Returns [B, heads, T, D] unchanged."""
        return x


class Attention(nn.Module):
    """Causal self-attention whose query heads may share heads of keys and values.

    Args:
        inputs: Width C to queries, keys and values side by side, (H + 2 K) D.
        output: H D to width C.
        rotation: What turns queries and keys by their positions: (x [B, heads, T, D], first
            position) to the same shape.
        heads: H.
        kv_heads: K, a divisor of H.
        window: How many positions are seen, the own one among them; 0 means all.
    """

    heads: int
    kv_heads: int
    window: int

    def __init__(
        self,
        inputs: nn.Linear,
        output: nn.Linear,
        rotation: nn.Module,
        heads: int,
        kv_heads: int,
        window: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.output, self.rotation = inputs, output, rotation
        self.heads, self.kv_heads, self.window = heads, kv_heads, window

    def forward(self, x: Tensor) -> Tensor:
        """Attends within whole windows: [B, T, C] to the same shape."""
        query, key, value = self._project(x, 0)
        positions = x.size(1)
        mask: Tensor | None = None
        if self.window > 0 and self.window < positions:
            seen = torch.ones([positions, positions], dtype=torch.bool, device=x.device).tril()
            mask = seen.triu(1 - self.window)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.heads != self.kv_heads,
        )
        return self._merge(mixed)

    def step(self, x: Tensor, cache: Tensor, position: int) -> Tensor:
        """Attends from one position to those before it and itself.

        Args:
            x: [B, 1, C].
            cache: [B, 2, K, max_context, D], keys and values; those of `position` are written.
            position: Index in the window.

        Returns:
            [B, 1, C].
        """
        query, key, value = self._project(x, position)
        cache[:, 0, :, position] = key.squeeze(2)
        cache[:, 1, :, position] = value.squeeze(2)
        first = max(0, position + 1 - self.window) if self.window > 0 else 0
        seen = cache[:, :, :, first : position + 1]
        # The query heads that share keys stand where positions do: nothing has to be repeated.
        query = query.view(x.size(0), self.kv_heads, -1, query.size(3))
        mixed = F.scaled_dot_product_attention(query, seen[:, 0], seen[:, 1])
        return self._merge(mixed.reshape(x.size(0), self.heads, 1, -1))

    def _project(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, C] to queries [B, H, T, D], keys and values [B, K, T, D]."""
        parts = self.heads + 2 * self.kv_heads
        projected = self.inputs(x).view(x.size(0), x.size(1), parts, -1).transpose(1, 2)
        turned = self.rotation(projected[:, : self.heads + self.kv_heads], first)
        value = projected[:, self.heads + self.kv_heads :]
        return turned[:, : self.heads], turned[:, self.heads :], value

    def _merge(self, mixed: Tensor) -> Tensor:
        """[B, H, T, D] to [B, T, C]."""
        merged: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return merged


class Block(nn.Module):
    """One layer: attention, then the MLP, each on the normed sum of all before."""

    def __init__(
        self, norm1: nn.Module, attention: Attention, norm2: nn.Module, mlp: nn.Module
    ) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2, self.mlp = norm1, attention, norm2, mlp

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to the same shape, for whole windows."""
        x = x + self.attention(self.norm1(x))
        after: Tensor = x + self.mlp(self.norm2(x))
        return after

    def step(self, x: Tensor, cache: Tensor, position: int) -> Tensor:
        """[B, 1, C] to the same shape; see Attention.step."""
        x = x + self.attention.step(self.norm1(x), cache, position)
        after: Tensor = x + self.mlp(self.norm2(x))
        return after


class CausalPrior(nn.Module):
    """A decoder under the contract of docs/prior.md; its logits are natural logarithms.

    The state is (cache, position): keys and values [B, layers, 2, K, max_context, D] of the
    window so far, and how many positions they cover. `step` writes into the state it is given.

    Args:
        vocab: The V token strings.
        max_context: Tokens of a window.
        embedding: (tokens [B, T], first position) to [B, T, C].
        blocks: The layers.
        norm: The last norm.
        head: Width C to the V tokens.
        head_dim: D.
    """

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    layers: int
    kv_heads: int
    head_dim: int

    def __init__(
        self,
        vocab: list[str],
        max_context: int,
        embedding: nn.Module,
        blocks: list[Block],
        norm: nn.Module,
        head: nn.Linear,
        head_dim: int,
    ) -> None:
        super().__init__()
        self.vocab = list(vocab)
        self.context_features = []
        self.max_context = max_context
        self.portable = False
        self.units_per_octave = math.log(2.0)
        self.layers, self.kv_heads = len(blocks), blocks[0].attention.kv_heads
        self.head_dim = head_dim
        self.embedding, self.norm, self.head = embedding, norm, head
        self.blocks = nn.ModuleList(blocks)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Predicts all tokens of windows that are known.

        Args:
            tokens: [B, T] int64, the token before each position.
            features: [B, T, 0], not looked at.

        Returns:
            [B, T, V] float32 logits.
        """
        x = self.embedding(tokens, 0)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits.float()

    @torch.jit.export
    def init_state(self, lanes: int) -> tuple[Tensor, int]:
        """Returns the state before a window."""
        weight = self.head.weight
        cache = torch.empty(
            [lanes, self.layers, 2, self.kv_heads, self.max_context, self.head_dim],
            dtype=weight.dtype,
            device=weight.device,
        )
        return cache, 0

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: tuple[Tensor, int]
    ) -> tuple[Tensor, tuple[Tensor, int]]:
        """Predicts the next token of every lane.

        Args:
            tokens: [B] int64, the token before.
            features: [B, 0], not looked at.
            state: What `init_state` or the last step returned.

        Returns:
            [B, V] float32 logits, and the next state.
        """
        cache, position = state
        x = self.embedding(tokens.unsqueeze(1), position)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, cache[:, layer], position)  # type: ignore[operator]
        logits: Tensor = self.head(self.norm(x))
        return logits.squeeze(1).float(), (cache, position + 1)
