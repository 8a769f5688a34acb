"""The Llama family: rotated queries and keys, RMS norms, a gated SiLU.

Llama and what has its architecture (TinyLlama, OpenLLaMA), and Mistral, whose attention sees a
window of positions only.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmgc_torch.export.causal import Attention, Block, CausalPrior, frozen
from lmgc_torch.export.checkpoint import CheckpointError, Weights, linear, require

__all__ = ["build"]

ROPE_TYPES = ("default", "linear", "llama3")


class TokenRows(nn.Module):
    """Rows of tokens; positions are told by the rotation.

    Args:
        tokens: [V, C].
    """

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = frozen(tokens)

    def forward(self, tokens: Tensor, first: int) -> Tensor:
        """Embeds tokens [B, T]: [B, T, C]."""
        return F.embedding(tokens, self.tokens)


class RmsNorm(nn.Module):
    """Scales vectors to a mean square of 1 (Zhang & Sennrich, 2019), then by learned weights.

    Args:
        weight: [C].
        epsilon: What is added to the mean square.
    """

    epsilon: float

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = frozen(weight)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to the same shape; the mean is computed in float32."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (wide * scale).to(x.dtype)


class Rotation(nn.Module):
    """Rotary position embedding (Su et al., 2021): turns pairs of coordinates by their position.

    Coordinate i makes a pair with i + D/2.

    Args:
        angles: [max_context, D/2] float64, in radians.
        dtype: What queries and keys are made of.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, angles: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("cosine", angles.cos().to(dtype))
        self.register_buffer("sine", angles.sin().to(dtype))

    def forward(self, x: Tensor, first: int) -> Tensor:
        """Turns [B, heads, T, D] whose first position is `first`."""
        cosine = self.cosine[first : first + x.size(2)]
        sine = self.sine[first : first + x.size(2)]
        left, right = x.chunk(2, -1)
        return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)


class GatedMlp(nn.Module):
    """SiLU(gate) * up, then a linear layer (SwiGLU; Shazeer, 2020).

    Args:
        inputs: Width C to gate and up, side by side.
        output: Back to width C.
    """

    def __init__(self, inputs: nn.Linear, output: nn.Linear) -> None:
        super().__init__()
        self.inputs, self.output = inputs, output

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to the same shape."""
        gate, up = self.inputs(x).chunk(2, -1)
        mixed: Tensor = self.output(F.silu(gate) * up)
        return mixed


def rope_settings(config: Any) -> dict[str, Any]:
    """Returns the settings of the rotation, which transformers 5 keeps in a place of their own."""
    settings = getattr(config, "rope_parameters", None)
    if settings is None:
        theta = getattr(config, "rope_theta", 10000.0)
        settings = {"rope_theta": theta, **(getattr(config, "rope_scaling", None) or {})}
    return dict(settings)


def rope_angles(config: Any, head_dim: int, max_context: int) -> Tensor:
    """Computes by how much each pair of coordinates turns at each position.

    Args:
        config: The checkpoint's configuration.
        head_dim: D, even.
        max_context: Positions.

    Returns:
        [max_context, D/2] float64, in radians.

    Raises:
        CheckpointError: The rotation is of a type that is not supported.
    """
    settings = rope_settings(config)
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise CheckpointError(
            f"the checkpoint's rope scaling is {kind!r}; supported are "
            f"{', '.join(map(repr, ROPE_TYPES))}"
        )
    if settings.get("partial_rotary_factor") not in (None, 1.0):
        raise CheckpointError("the checkpoint turns only a part of each head; supported is all")
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    turning = torch.as_tensor(float(settings["rope_theta"]), dtype=torch.float64) ** -exponent
    if kind == "linear":
        turning = turning / settings["factor"]
    elif kind == "llama3":
        turning = _stretched(turning, settings)
    # The checkpoint was trained with frequencies and angles of float32.
    position = torch.arange(max_context, dtype=torch.float32)
    return (position[:, None] * turning.float()).double()


def _stretched(turning: Tensor, settings: dict[str, Any]) -> Tensor:
    """Llama 3.1's scaling: slow turns become slower by `factor`, fast ones stay, in between mixed.

    How fast a pair turns is counted in full turns within the context of the first training.
    """
    turns = turning * settings["original_max_position_embeddings"] / (2 * math.pi)
    slow, fast = settings["low_freq_factor"], settings["high_freq_factor"]
    kept = ((turns - slow) / (fast - slow)).clamp(0.0, 1.0)
    mixed: Tensor = kept * turning + (1 - kept) * turning / settings["factor"]
    return mixed


def build(
    config: Any, weights: Weights, vocab: list[str], ids: Tensor, max_context: int
) -> CausalPrior:
    """Makes a prior of a LlamaForCausalLM or MistralForCausalLM.

    Args:
        config: Its configuration.
        weights: Its tensors.
        vocab: The prior's V token strings.
        ids: [V] int64, the checkpoint's ids of them.
        max_context: Tokens of a window.

    Returns:
        The prior.

    Raises:
        CheckpointError: A setting or tensor is not this family's.
    """
    require(config, "hidden_act", "silu", "swish")
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    window = _window(config)

    def norm(name: str) -> RmsNorm:
        return RmsNorm(weights.take(f"{name}.weight"), config.rms_norm_eps)

    def side_by_side(*names: str) -> nn.Linear:
        weight = torch.cat([weights.take(f"{name}.weight") for name in names])
        biases = [weights.find(f"{name}.bias") for name in names]
        present = [bias for bias in biases if bias is not None]
        if 0 < len(present) < len(names):
            raise CheckpointError(f"only some of {', '.join(names)} have a bias")
        return linear(weight, torch.cat(present) if present else None)

    embedding = TokenRows(weights.take("model.embed_tokens.weight")[ids])
    angles = rope_angles(config, head_dim, max_context)
    rotation = Rotation(angles, embedding.tokens.dtype)
    blocks = []
    for index in range(config.num_hidden_layers):
        name = f"model.layers.{index}"
        attention = Attention(
            side_by_side(*(f"{name}.self_attn.{part}_proj" for part in "qkv")),
            side_by_side(f"{name}.self_attn.o_proj"),
            rotation,
            heads=heads,
            kv_heads=kv_heads,
            window=window if window < max_context else 0,
        )
        mlp = GatedMlp(
            side_by_side(f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj"),
            side_by_side(f"{name}.mlp.down_proj"),
        )
        norms = (norm(f"{name}.input_layernorm"), norm(f"{name}.post_attention_layernorm"))
        blocks.append(Block(norms[0], attention, norms[1], mlp))
    return CausalPrior(
        vocab,
        max_context,
        embedding,
        blocks,
        norm("model.norm"),
        linear(weights.take("lm_head.weight")[ids]),
        head_dim=head_dim,
    )


def _window(config: Any) -> int:
    """Returns how many positions the attention sees; 0 means all."""
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    window = int(getattr(config, "sliding_window", None) or 0)
    if len(kinds) > 1 or (window > 0 and kinds != {"sliding_attention"}):
        raise CheckpointError(
            f"the checkpoint's layers are of the types {sorted(kinds)}; all must see the same "
            "window"
        )
    return window
