"""GPT-2: learned positions, layer norms, a GELU between two linear layers."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lmgc_torch.export.causal import Attention, Block, CausalPrior, Unrotated, frozen
from lmgc_torch.export.checkpoint import Weights, linear, require

__all__ = ["build"]


class LearnedPositions(nn.Module):
    """Rows of tokens plus rows of positions.

    Args:
        tokens: [V, C].
        positions: [max_context, C].
    """

    def __init__(self, tokens: Tensor, positions: Tensor) -> None:
        super().__init__()
        self.tokens, self.positions = frozen(tokens), frozen(positions)

    def forward(self, tokens: Tensor, first: int) -> Tensor:
        """Embeds tokens [B, T] that begin at position `first`: [B, T, C]."""
        return F.embedding(tokens, self.tokens) + self.positions[first : first + tokens.size(1)]


class GeluMlp(nn.Module):
    """linear, GELU in its tanh form, linear."""

    def __init__(self, hidden: nn.Linear, output: nn.Linear) -> None:
        super().__init__()
        self.hidden, self.output = hidden, output

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to the same shape."""
        mixed: Tensor = self.output(F.gelu(self.hidden(x), approximate="tanh"))
        return mixed


def build(
    config: Any, weights: Weights, vocab: list[str], ids: Tensor, max_context: int
) -> CausalPrior:
    """Makes a prior of a GPT2LMHeadModel.

    Args:
        config: Its configuration.
        weights: Its tensors.
        vocab: The prior's V token strings.
        ids: [V] int64, the checkpoint's ids of them.
        max_context: Tokens of a window, at most the learned positions.

    Returns:
        The prior.

    Raises:
        CheckpointError: A setting or tensor is not GPT-2's.
    """
    require(config, "activation_function", "gelu_new", "gelu_pytorch_tanh")
    require(config, "scale_attn_weights", True)
    require(config, "scale_attn_by_inverse_layer_idx", False)
    require(config, "reorder_and_upcast_attn", False)
    require(config, "add_cross_attention", False)

    def norm(name: str) -> nn.LayerNorm:
        layer = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon, device="meta")
        layer.weight = frozen(weights.take(f"{name}.weight"))
        layer.bias = frozen(weights.take(f"{name}.bias"))
        return layer

    def layer(name: str) -> nn.Linear:  # the checkpoint keeps [in, out]
        return linear(weights.take(f"{name}.weight").t(), weights.take(f"{name}.bias"))

    embedding = LearnedPositions(
        weights.take("transformer.wte.weight")[ids],
        weights.take("transformer.wpe.weight")[:max_context].clone(),
    )
    blocks = []
    for index in range(config.n_layer):
        name = f"transformer.h.{index}"
        attention = Attention(
            layer(f"{name}.attn.c_attn"),
            layer(f"{name}.attn.c_proj"),
            Unrotated(),
            heads=config.n_head,
            kv_heads=config.n_head,
        )
        mlp = GeluMlp(layer(f"{name}.mlp.c_fc"), layer(f"{name}.mlp.c_proj"))
        blocks.append(Block(norm(f"{name}.ln_1"), attention, norm(f"{name}.ln_2"), mlp))
    return CausalPrior(
        vocab,
        max_context,
        embedding,
        blocks,
        norm("transformer.ln_f"),
        linear(weights.take("lm_head.weight")[ids]),
        head_dim=config.n_embd // config.n_head,
    )
