"""A small character-level transformer for hexadecimal text, under the contract of docs/prior.md.

One model serves every cell of the report: its tokens are the sixteen digits, `<bos>`, all
separators, and the other characters of ISO 8859-1 (bytes 0x30 to 0x39 and 0x61 to 0x66 are the
digits' own characters). It is a bound prior without context features: like the language models of
the paper it sees the text and nothing else.

Positions are rotary, so that a model trained on mixed lengths can be asked for 4096 tokens; the
heads share one key and one value (multi-query attention), which keeps the cache small enough for
decoding on a CPU.
"""

import math
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIGITS = "0123456789abcdef"
SEPARATORS = {"space": " ", "comma": ",", "comma_space": ", ", "semicolon": ";", "0x": "0x"}
_FIRST = [*DIGITS, "<bos>", *SEPARATORS.values()]
VOCAB = [*_FIRST, *(chr(code) for code in range(256) if chr(code) not in _FIRST)]
BOS = VOCAB.index("<bos>")
LONGEST = 4096  # tokens
CACHE_BLOCK = 256  # positions by which caches grow


class Attention(nn.Module):
    """Causal attention with one key and value for all heads: [B, T, C] -> [B, T, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads, self.size = width, heads, width // heads
        self.scale = 1 / math.sqrt(self.size)
        self.query_key_value = nn.Linear(width, width + 2 * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, time, width = x.shape
        mixed = self.query_key_value(x)
        query = mixed[:, :, :width].view(batch, time, self.heads, self.size).transpose(1, 2)
        key = mixed[:, :, width : width + self.size].unsqueeze(1)
        value = mixed[:, :, width + self.size :].unsqueeze(1)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        shape = [batch, self.heads, time, self.size]
        result = F.scaled_dot_product_attention(
            query, key.expand(shape), value.expand(shape), is_causal=True
        )
        return self.out(result.transpose(1, 2).reshape(batch, time, width))

    def step(
        self, x: Tensor, keys: Tensor, values: Tensor, time: int, cosine: Tensor, sine: Tensor
    ) -> Tensor:
        """One position: x [B, C]; keys and values [B, more than `time`, size] get its own."""
        mixed = self.query_key_value(x)
        query = rotate(mixed[:, : self.width].view(-1, self.heads, self.size), cosine, sine)
        key = rotate(mixed[:, self.width : self.width + self.size], cosine, sine)
        keys[:, time] = key
        values[:, time] = mixed[:, self.width + self.size :]
        scores = torch.bmm(query, keys[:, : time + 1].transpose(1, 2)) * self.scale
        mean = torch.bmm(torch.softmax(scores, -1), values[:, : time + 1])
        return self.out(mean.view(-1, self.width))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns the pairs (x[..., i], x[..., i + size / 2]) by their position's angles."""
    half = x.size(-1) // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cosine, sine)
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def step(
        self, x: Tensor, keys: Tensor, values: Tensor, time: int, cosine: Tensor, sine: Tensor
    ) -> Tensor:
        x = x + self.attention.step(self.norm1(x), keys, values, time, cosine, sine)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class HexTransformer(nn.Module):
    """The prior; its state is (keys and values [B, positions, size] of each layer, positions)."""

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    cosine: Tensor
    sine: Tensor

    def __init__(self, width: int = 128, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.vocab = list(VOCAB)
        self.context_features = []
        self.max_context = 1024
        self.portable = False
        self.units_per_octave = math.log(2)
        self.cache_width, self.cache_block = width // heads, CACHE_BLOCK
        self.tokens = nn.Embedding(len(VOCAB), width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(VOCAB))
        half = width // heads // 2
        # From less than a digit's distance to some thousands of tokens.
        frequency = LONGEST ** (-torch.arange(half) / half)
        angle = torch.arange(LONGEST)[:, None] * frequency
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T, V] of the tokens after tokens [B, T]; there are no features."""
        x = self.tokens(tokens)
        cosine, sine = self.cosine[: tokens.size(1)], self.sine[: tokens.size(1)]
        for block in self.blocks:
            x = block(x, cosine, sine)
        return self.head(self.norm(x))

    @torch.jit.export
    def init_state(self, lanes: int) -> tuple[list[Tensor], int]:
        caches: list[Tensor] = []
        shape = [lanes, self.cache_block, self.cache_width]
        for _ in self.blocks:
            caches.append(torch.zeros(shape, device=self.cosine.device))
            caches.append(torch.zeros(shape, device=self.cosine.device))
        return caches, 0

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: tuple[list[Tensor], int]
    ) -> tuple[Tensor, tuple[list[Tensor], int]]:
        caches, time = state
        if time == caches[0].size(1):
            more = torch.zeros_like(caches[0][:, : self.cache_block])
            caches = [torch.cat([cache, more], 1) for cache in caches]
        x = self.tokens(tokens)
        cosine, sine = self.cosine[time], self.sine[time]
        for layer, block in enumerate(self.blocks):
            keys, values = caches[2 * layer], caches[2 * layer + 1]
            x = block.step(x, keys, values, time, cosine, sine)
        return self.head(self.norm(x)), (caches, time + 1)


def save_prior(model: HexTransformer, path: Path) -> None:
    """Writes the model as a TorchScript prior."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(model.eval()).save(str(path))
