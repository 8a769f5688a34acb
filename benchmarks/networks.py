"""The networks whose gradients we compress: those of LM-GC's protocol and small transformers.

Every constructor takes the input's size and its own width and depth, so that the networks a prior
is trained on can differ in architecture from those it is measured on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VGG_STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}  # convolutions per stage


def convnet(channels: int, side: int, *, width: int = 128, depth: int = 3) -> nn.Module:
    """Builds the ConvNet of the dataset-distillation literature, which LM-GC uses.

    ``depth`` blocks of 3x3 convolution, instance norm, ReLU, 2x2 average pool, then a linear layer.

    Args:
        channels: image channels; one-channel 28x28 images are padded to 32x32, as in the original.
        side: image height and width in pixels.
        width: channels of every block.
        depth: number of blocks.

    Returns:
        A module from images [N,C,H,W] to 10 logits [N,10].
    """
    layers: list[nn.Module] = []
    padding = 1 + (32 - side) // 2
    for block in range(depth):
        layers += [
            nn.Conv2d(channels if block == 0 else width, width, 3, padding=padding),
            nn.GroupNorm(width, width),  # one channel a group: instance norm with an affine map
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
        padding = 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (32 >> depth) ** 2, 10))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut: [N,I,H,W] -> [N,O,H/s,W/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


def resnet(
    channels: int, side: int, *, width: int = 64, blocks: tuple[int, ...] = (2, 2, 2, 2)
) -> nn.Module:
    """Builds the CIFAR variant of ResNet: 3x3 stem without pooling, one stage per entry of
    ``blocks``, doubling the width. (2, 2, 2, 2) is ResNet-18, (1, 1, 1, 1) ResNet-10."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage, count in enumerate(blocks):
        outputs = width << stage
        for index in range(count):
            layers.append(ResidualBlock(inputs, outputs, 2 if stage > 0 and index == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def vgg(channels: int, side: int, *, width: int = 64, layers: int = 16) -> nn.Module:
    """Builds the CIFAR variant of VGG with batch norm for 32x32 images; ``layers`` is 11 or 16.

    Stages have width x 1, 2, 4, 8, 8 channels; a single linear layer follows.
    """
    modules: list[nn.Module] = []
    inputs = channels
    for count, factor in zip(VGG_STAGES[layers], (1, 2, 4, 8, 8), strict=True):
        for _ in range(count):
            modules += [nn.Conv2d(inputs, width * factor, 3, padding=1)]
            modules += [nn.BatchNorm2d(width * factor), nn.ReLU()]
            inputs = width * factor
        modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(inputs * (side // 32) ** 2, 10))


def mlp(channels: int, side: int, *, width: int = 256, depth: int = 2) -> nn.Module:
    """Builds ``depth`` hidden layers of ``width`` ReLU units between the pixels and 10 logits."""
    modules: list[nn.Module] = [nn.Flatten()]
    inputs = channels * side * side
    for _ in range(depth):
        modules += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*modules, nn.Linear(inputs, 10))


class Block(nn.Module):
    """A pre-norm transformer block, [N,T,width] -> [N,T,width]."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [N,heads,T,width/heads]
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        hidden: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + hidden


class ViT(nn.Module):
    """A vision transformer on 4x4 patches: images [N,C,H,W] -> logits [N,10]."""

    def __init__(
        self, channels: int, side: int, *, width: int = 192, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(1, (side // 4) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


class GPT(nn.Module):
    """A character-level causal transformer: characters int64 [N,T] -> logits [N,T,vocabulary]."""

    def __init__(
        self, vocabulary: int, context: int, *, width: int = 192, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, context, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.blocks(self.characters(x) + self.position)))
        return logits


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "convnet": convnet,
    "resnet": resnet,
    "vgg": vgg,
    "mlp": mlp,
    "vit": ViT,
    "gpt": GPT,
}
