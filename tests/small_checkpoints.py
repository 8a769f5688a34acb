"""Small checkpoints of transformers, with random weights and trained tokenizers, made here."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

# A tokenizer's place: ids of the tokens that a prior knows, not in their order.
IDS = {text: (7 * i + 3) % 67 for i, text in enumerate([*"0123456789abcdef", "<bos>", " ", ", "])}

LLAMA = {
    "vocab_size": 67,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "vocab_size": 67,
    "n_positions": 96,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", {**GPT2, "tie_word_embeddings": False, "n_inner": 40}),
    "llama": ("Llama", LLAMA),
    "llama grouped": ("Llama", {**LLAMA, "num_key_value_heads": 2}),
    "llama one kv head": ("Llama", {**LLAMA, "num_key_value_heads": 1}),
    "llama head_dim": ("Llama", {**LLAMA, "num_key_value_heads": 3, "head_dim": 14}),
    "llama biases": ("Llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama tied": ("Llama", {**LLAMA, "tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    "llama rope llama3": ("Llama", {**LLAMA, "rope_scaling": LLAMA3_ROPE, "rope_theta": 5e5}),
    "llama rope linear": ("Llama", {**LLAMA, "rope_scaling": LINEAR_ROPE}),
    "mistral": ("Mistral", {**LLAMA, "num_key_value_heads": 2, "sliding_window": None}),
    "mistral window": ("Mistral", {**LLAMA, "num_key_value_heads": 2, "sliding_window": 20}),
}


def make_model(family: str, settings: Mapping[str, Any], seed: int = 0) -> Any:
    """A model whose every number matters: also biases, and the weights of norms."""
    config = getattr(transformers, f"{family}Config")(**settings)
    kind = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            vector = parameter.dim() == 1
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.3 if vector else 0.15) + float(vector))
    return model


def sample_lines(separators: Sequence[str]) -> list[str]:
    """Text in which digits, and what separates them, become tokens of their own."""
    source = random.Random(0)
    numbers = [f"{source.randrange(2**12):x}" for _ in range(3000)]
    return [
        between.join(numbers[i : i + 10])
        for i in range(0, len(numbers), 10)
        for between in separators
    ]


@functools.cache
def byte_level() -> Any:
    """Byte-level BPE, as GPT-2 and Llama 3 have it."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_lines([" ", ",", ", ", ";", "0x"]), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>"
    )


def write_gpt2(folder: Path) -> Path:
    """A GPT-2 and its tokenizer."""
    make_model("GPT2", {**GPT2, "vocab_size": len(byte_level())}).save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder
