"""Checkpoints that cannot become priors: the message says why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_checkpoints import (
    CASES,
    GPT2,
    IDS,
    LINEAR_ROPE,
    LLAMA,
    make_model,
    tokenizers,
    transformers,
)

from lmgc_torch.export import CheckpointError, export_prior

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize("family", ["GPTNeoX", "OPT"])
def test_other_architectures(tmp_path: Path, family: str):
    config = getattr(transformers, f"{family}Config")(
        vocab_size=67, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="supported are 'gpt2', 'llama', 'mistral'"):
        export_prior(tmp_path, tmp_path / "prior.pt")
    (tmp_path / "config.json").write_text('{"model_type": "martian"}')
    with pytest.raises(CheckpointError, match=r"martian.*supported are 'gpt2'"):
        export_prior(tmp_path, tmp_path / "prior.pt")
    assert not (tmp_path / "prior.pt").exists()


@pytest.mark.parametrize(
    ("family", "changed", "says"),
    [
        ("GPT2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("GPT2", {"scale_attn_weights": False}, "scale_attn_weights"),
        ("GPT2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("GPT2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ("GPT2", {"add_cross_attention": True}, "add_cross_attention"),
        ("GPT2", {"n_positions": 32}, "32 positions"),
        ("Llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (
            "Llama",
            {"rope_scaling": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope scaling is 'dynamic'; supported are 'default', 'linear', 'llama3'",
        ),
        (
            "Llama",
            {"rope_scaling": {**LINEAR_ROPE, "partial_rotary_factor": 0.5}},
            "only a part of each head",
        ),
        ("Mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "same window"),
    ],
)
def test_settings_that_are_not_supported(
    tmp_path: Path, family: str, changed: dict[str, Any], says: str
):
    settings = {**(GPT2 if family == "GPT2" else LLAMA), **changed}
    if family == "Mistral":
        settings["num_key_value_heads"] = 2
    model = make_model(family, settings)
    with pytest.raises(CheckpointError, match=says):
        export_prior(model, tmp_path / "prior.pt", tokenizer=IDS)
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_are_not_supported(tmp_path: Path):
    def refused(model: Any, says: str) -> None:
        with pytest.raises(CheckpointError, match=says):
            export_prior(model, tmp_path / "prior.pt", tokenizer=IDS)

    model = make_model(*CASES["llama"])
    model.model.layers[0].self_attn.extra = torch.nn.Linear(2, 2)
    refused(model, r"2 tensors.*self_attn\.extra\.bias")
    model = make_model(*CASES["llama"])
    model.model.layers[1].mlp.gate_proj.bias = torch.nn.Parameter(torch.zeros(80))
    refused(model, "only some of .*gate_proj")
    model = make_model(*CASES["gpt2"])
    model.transformer.h[1].ln_1 = torch.nn.Identity()
    refused(model, r"no tensor 'transformer\.h\.1\.ln_1\.weight'.*adapters")
    refused(make_model(*CASES["llama"]).to("meta"), "offloaded")
    model = make_model(*CASES["llama"])
    model.config.quantization_config = {"quant_method": "gptq"}
    refused(model, "quantized")
    refused(make_model(*CASES["llama"]).model, "LlamaModel does not predict")


def test_checkpoints_without_a_head(tmp_path: Path):
    make_model(*CASES["llama"]).model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors.*lm_head\.weight"):
        export_prior(tmp_path, tmp_path / "prior.pt", tokenizer=IDS)


def test_tokenizers_that_do_not_do(tmp_path: Path, gpt2_folder: Path):
    def refused(tokenizer: Any, says: str, kind: type[Exception] = CheckpointError) -> None:
        with pytest.raises(kind, match=says):
            export_prior(make_model(*CASES["gpt2"]), tmp_path / "a.pt", tokenizer=tokenizer)

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "12": 1}, "<unk>"))
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    refused(wrapped, "none of the tokenizer's 2 tokens is the single digit '0'")
    refused({**IDS, "a": IDS["b"]}, "two digits the same id")
    refused({**IDS, "a": 67}, "ids up to 67, the model 67 tokens")
    refused(None, "needs its tokenizer", TypeError)
    refused(7, "not a int", TypeError)
    for file in gpt2_folder.iterdir():
        if "token" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="tokenizer"):
        export_prior(tmp_path, tmp_path / "prior.pt")


def test_checkpoints_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        export_prior(tmp_path / "none", tmp_path / "prior.pt")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        export_prior(tmp_path, tmp_path / "prior.pt")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        export_prior(tmp_path, tmp_path / "prior.pt")
    with pytest.raises(CheckpointError, match="folder with a config"):
        export_prior(tmp_path / "config.json", tmp_path / "prior.pt")
    make_model(*CASES["gpt2"]).config.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights"):
        export_prior(tmp_path, tmp_path / "prior.pt", tokenizer=IDS)
    with pytest.raises(TypeError, match="not a int"):
        export_prior(3, tmp_path / "prior.pt", tokenizer=IDS)

    def offline(name: str) -> None:
        raise OSError(f"no network for {name}\nand more")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(FileNotFoundError, match=r"hub gives none: no network for some/model$"):
        export_prior("some/model", tmp_path / "prior.pt")


def test_options_out_of_range(tmp_path: Path):
    model = make_model(*CASES["gpt2"])
    for context in (63, 97):
        with pytest.raises(ValueError, match="it must be 64 to 96"):
            export_prior(model, tmp_path / "a.pt", tokenizer=IDS, max_context=context)
    with pytest.raises(ValueError, match=r"dtype is torch\.float64"):
        export_prior(model, tmp_path / "a.pt", tokenizer=IDS, dtype=torch.float64)
    with pytest.raises(FileNotFoundError):
        export_prior(model, tmp_path / "none" / "a.pt", tokenizer=IDS)


def test_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install lmgc_torch\[export\]"):
        export_prior("some/model", tmp_path / "a.pt")
