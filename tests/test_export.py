"""Checkpoints as priors: the same logits as transformers', the right tokens, frames that decode.

All models are small, with random weights made here.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import gradient, identical, python

import lmgc_torch
from lmgc_torch import Prior, cli
from lmgc_torch.export import CheckpointError, export_prior
from lmgc_torch.export.vocabulary import find_vocabulary

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning")

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


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small layers gain nothing from threads, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def some_tokens(vocab: list[str], lanes: int, positions: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, len(vocab), (lanes, positions), generator=generator)
    tokens[:, 0] = vocab.index("<bos>")
    return tokens


@torch.no_grad()
def stepped(module: Any, tokens: torch.Tensor) -> torch.Tensor:
    state = module.init_state(tokens.size(0))
    logits = []
    for position in range(tokens.size(1)):
        now, state = module.step(tokens[:, position], torch.zeros(tokens.size(0), 0), state)
        logits.append(now)
    return torch.stack(logits, 1)


@torch.no_grad()
def forwarded(module: Any, tokens: torch.Tensor) -> torch.Tensor:
    return module(tokens, torch.zeros(*tokens.shape, 0))


# ---- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_logits_are_transformers_own(tmp_path: Path, case: str):
    family, settings = CASES[case]
    model = make_model(family, settings)
    about = export_prior(model, tmp_path / "prior.pt", tokenizer=IDS)
    prior = torch.jit.load(tmp_path / "prior.pt")
    tokens = some_tokens(prior.vocab, 3, 90)
    ids = torch.tensor([IDS[text] for text in prior.vocab])
    with torch.no_grad():
        wanted = model(ids[tokens]).logits[..., ids]
    assert wanted.std() > 0.5  # or the tolerance would mean nothing
    torch.testing.assert_close(forwarded(prior, tokens), wanted, atol=2e-5, rtol=0)
    torch.testing.assert_close(stepped(prior, tokens), wanted, atol=2e-5, rtol=0)
    assert about.architecture == model.config.model_type
    assert about.bytes == (tmp_path / "prior.pt").stat().st_size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["gpt2", "llama grouped"])
def test_half_precision(tmp_path: Path, dtype: torch.dtype, case: str):
    model = make_model(*CASES[case])
    about = export_prior(model, tmp_path / "prior.pt", tokenizer=IDS, dtype=dtype)
    assert about.dtype == dtype
    prior = torch.jit.load(tmp_path / "prior.pt")
    assert {parameter.dtype for parameter in prior.parameters()} == {dtype}
    tokens = some_tokens(prior.vocab, 2, 64)
    ids = torch.tensor([IDS[text] for text in prior.vocab])
    with torch.no_grad():
        wanted = model(ids[tokens]).logits[..., ids]
    tolerance = 0.25 if dtype == torch.bfloat16 else 0.03
    logits = forwarded(prior, tokens)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, wanted, atol=tolerance, rtol=0)
    torch.testing.assert_close(stepped(prior, tokens), wanted, atol=tolerance, rtol=0)


def test_lanes_may_leave(tmp_path: Path):
    """The codec narrows the state to the lanes that stay."""
    export_prior(make_model(*CASES["llama grouped"]), tmp_path / "prior.pt", tokenizer=IDS)
    prior = torch.jit.load(tmp_path / "prior.pt")
    tokens = some_tokens(prior.vocab, 4, 12)
    features = torch.zeros(4, 0)
    cache, position = prior.init_state(4)
    for t in range(12):
        lanes = 4 if t < 7 else 2
        cache = cache.narrow(0, 0, lanes)
        logits, (cache, position) = prior.step(
            tokens[:lanes, t], features[:lanes], (cache, position)
        )
    wanted = forwarded(prior, tokens)[:2, -1]
    torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=0)
    assert position == 12


def test_a_window_has_max_context_tokens(tmp_path: Path):
    about = export_prior(
        make_model(*CASES["gpt2"]), tmp_path / "prior.pt", tokenizer=IDS, max_context=64
    )
    prior = torch.jit.load(tmp_path / "prior.pt")
    assert about.max_context == prior.max_context == 64
    assert prior.embedding.positions.size(0) == 64
    tokens = some_tokens(prior.vocab, 2, 65)
    stepped(prior, tokens[:, :64])
    with pytest.raises(RuntimeError):
        stepped(prior, tokens)


# ---- the vocabulary ------------------------------------------------------------------------------


def sample_lines(separators: Sequence[str]) -> list[str]:
    """Text in which digits, and what separates them, become tokens of their own."""
    source = random.Random(0)
    numbers = [f"{source.randrange(2**12):x}" for _ in range(3000)]
    return [
        between.join(numbers[i : i + 10])
        for i in range(0, len(numbers), 10)
        for between in separators
    ]


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def metaspace() -> Any:
    """BPE over characters with bytes for the rest, as Llama 2 and Mistral have it; no "f"."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    lines = (line.replace("f", "") for line in sample_lines([" ", ",", ", ", ";"]))
    tokenizer.train_from_iterator(lines, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def config_of(tokenizer: Any, **settings: Any) -> Any:
    return transformers.LlamaConfig(**{**LLAMA, "vocab_size": len(tokenizer), **settings})


def test_byte_level_tokenizers(byte_level: Any):
    found = find_vocabulary(byte_level, config_of(byte_level))
    texts = dict(zip(found.tokens, found.ids, strict=True))
    assert len(texts) == len(found.tokens)
    assert found.tokens[:17] == [*"0123456789abcdef", "<bos>"]
    for text in [*"0123456789abcdef", " ", ",", ", ", ";", "0x"]:
        assert byte_level.decode([texts[text]]) == text
    assert merged_digits(byte_level)
    assert texts["<bos>"] == byte_level.eos_token_id
    assert found.separators == lmgc_separators("none space comma comma_space semicolon 0x")
    # A character beyond ASCII is two bytes of UTF-8; where they are no token, its own byte is.
    vocab = byte_level.get_vocab()
    assert texts["\x00"] == vocab["\u0100"]  # as byte-level vocabularies write bytes
    assert texts["\xe9"] == vocab["\xe9"]
    with_e_acute = Known({**vocab, "\xc3\xa9": len(vocab)})
    found = find_vocabulary(with_e_acute, config_of(byte_level, vocab_size=len(vocab) + 1))
    assert found.ids[found.tokens.index("\xe9")] == len(vocab)


class Known:
    """A tokenizer as far as the export looks at it."""

    def __init__(self, vocab: dict[str, int]) -> None:
        self.get_vocab = vocab.copy


def merged_digits(tokenizer: Any) -> list[str]:
    """Tokens of several digits, which the vocabulary is found in spite of."""
    digits = set("0123456789abcdef")
    return [text for text in tokenizer.get_vocab() if len(text) > 1 and set(text) <= digits]


def lmgc_separators(names: str) -> list[str]:
    return [*names.split(), "iso-8859-1"]


def test_metaspace_tokenizers(metaspace: Any):
    found = find_vocabulary(metaspace, config_of(metaspace))
    texts = dict(zip(found.tokens, found.ids, strict=True))
    vocab = metaspace.get_vocab()
    assert texts["7"] == vocab["7"] != vocab["▁7"]
    assert texts["f"] == vocab["<0x66>"]  # the tokenizer has no "f"
    assert texts[" "] == vocab["▁"]
    assert texts["\xff"] == vocab["<0xFF>"]
    assert texts["<bos>"] == metaspace.bos_token_id
    assert merged_digits(metaspace)
    assert found.separators == lmgc_separators("none space comma semicolon")  # ", " is two tokens


def test_sentencepiece_files(tmp_path: Path):
    """A folder with a tokenizer.model alone, as OpenLLaMA's."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample_lines([" ", ",", ", ", ";"])),
        model_writer=written,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(written.getvalue())
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}'
    )
    make_model("Llama", {**LLAMA, "vocab_size": 400}).save_pretrained(tmp_path)
    about = export_prior(tmp_path, tmp_path / "prior.pt")
    assert about.separators == lmgc_separators("none space comma semicolon")
    assert Prior.load(tmp_path / "prior.pt").vocab == about.vocab


def test_the_beginning_of_a_text():
    no_bos = {text: token for text, token in IDS.items() if text != "<bos>"}

    def bos(**settings: Any) -> int:
        config = transformers.LlamaConfig(**{**LLAMA, **settings})
        found = find_vocabulary(no_bos, config)
        return found.ids[found.tokens.index("<bos>")]

    assert bos(bos_token_id=5) == 5
    assert bos(bos_token_id=None, eos_token_id=6) == 6
    assert bos(bos_token_id=None, eos_token_id=[7, 8]) == 7
    with pytest.raises(CheckpointError, match="bos_token_id"):
        bos(bos_token_id=None, eos_token_id=None)


# ---- with the codec ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory, byte_level: Any) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    make_model("GPT2", {**GPT2, "vocab_size": len(byte_level)}).save_pretrained(folder)
    byte_level.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2_prior(tmp_path_factory: pytest.TempPathFactory, gpt2_folder: Path) -> Prior:
    file = tmp_path_factory.mktemp("exported") / "gpt2.pt"
    export_prior(gpt2_folder, file)
    return Prior.load(file)


@pytest.fixture(scope="session")
def mistral_prior(tmp_path_factory: pytest.TempPathFactory, metaspace: Any) -> Prior:
    folder = tmp_path_factory.mktemp("mistral")
    settings = {**CASES["mistral window"][1], "vocab_size": len(metaspace)}
    make_model("Mistral", settings).save_pretrained(folder)
    metaspace.save_pretrained(folder)
    export_prior(folder, folder / "prior.pt", max_context=64)
    return Prior.load(folder / "prior.pt")


def there_and_back(values: torch.Tensor, prior: Prior, **options: Any) -> int:
    frame = lmgc_torch.compress(values, method="lmgc", prior=prior, **options)
    assert lmgc_torch.info(frame).method == "lmgc"
    assert identical(lmgc_torch.decompress(frame, prior=prior), values)
    return frame.numel()


@pytest.mark.parametrize(
    ("separator", "bytes_per_group", "byte_order"),
    [
        ("none", 0, "big"),
        ("space", 4, "big"),
        ("comma", 2, "little"),
        ("comma_space", 3, "big"),
        ("semicolon", 4, "little"),
        ("0x", 4, "big"),
        ("iso-8859-1", 0, "big"),
    ],
)
def test_frames_decode(gpt2_prior: Prior, separator: str, bytes_per_group: int, byte_order: str):
    options = {"separator": separator, "byte_order": byte_order}
    options["bytes_per_group"] = bytes_per_group
    # Random weights predict badly: zeros let "lmgc" stay smaller than "raw".
    values = torch.cat([torch.zeros(700), gradient(20)])
    there_and_back(values, gpt2_prior, lane_elements=90, **options)


def test_windows_begin_anew(mistral_prior: Prior):
    """Lanes of several windows, and of different lengths."""
    values = torch.cat([torch.zeros(700), gradient(50)])
    assert mistral_prior.max_context == 64
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        there_and_back(values.to(dtype), mistral_prior, separator="space", lane_elements=80)


def test_what_the_prior_says_of_itself(gpt2_prior: Prior):
    assert gpt2_prior.max_context == 96
    assert gpt2_prior.context_features == []
    assert not gpt2_prior.portable
    assert gpt2_prior.vocab[:17] == [*"0123456789abcdef", "<bos>"]


def test_exporting_again_gives_the_same_prior(gpt2_folder: Path, gpt2_prior: Prior, tmp_path: Path):
    export_prior(gpt2_folder, tmp_path / "again.pt")
    assert Prior.load(tmp_path / "again.pt").fingerprint == gpt2_prior.fingerprint


# ---- what does not do ----------------------------------------------------------------------------


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


# ---- the command line ----------------------------------------------------------------------------


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    def run(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        assert cli.main(["export-prior", *map(str, arguments)]) == code
        out, messages = capfd.readouterr()
        assert out == ""
        assert "Traceback" not in messages
        return messages

    return run


def test_command(run, gpt2_folder: Path, tmp_path: Path):
    output = tmp_path / "prior.pt"
    message = run(gpt2_folder, "-o", output, "--max-context", 80, "--dtype", "bfloat16")
    prior = Prior.load(output)
    assert prior.max_context == 80
    parameters = sum(tensor.numel() for tensor in torch.jit.load(output).parameters())
    assert message == (
        f"prior.pt: gpt2, {parameters:,} parameters in bfloat16, {output.stat().st_size:,} bytes, "
        "windows of 80 tokens; separators: none, space, comma, comma_space, semicolon, 0x, "
        "iso-8859-1\n"
    )
    before = output.read_bytes()
    assert "exists already" in run(gpt2_folder, "-o", output, code=2)
    assert output.read_bytes() == before
    assert run(gpt2_folder, "-o", output, "-f", "-q") == ""
    assert Prior.load(output).max_context == 96
    assert {path.name for path in tmp_path.iterdir()} == {"prior.pt"}


def test_command_says_what_is_wrong(
    run, gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "prior.pt"
    assert "no checkpoint folder" in run(tmp_path / "none", "-o", output, code=2)
    assert "64 to 96" in run(gpt2_folder, "-o", output, "--max-context", 10, code=2)
    assert "no folder" in run(gpt2_folder, "-o", tmp_path / "none" / "prior.pt", code=2)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "config.json").write_text(json.dumps({"model_type": "opt"}))
    message = run(tmp_path / "opt", "-o", output, code=1)
    assert message.count("\n") == 1
    assert "architecture is 'opt'; supported are 'gpt2', 'llama', 'mistral'" in message
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install lmgc_torch[export]" in run(gpt2_folder, "-o", output, code=2)
    assert not output.exists()


def test_only_export_needs_transformers():
    result = python("import sys, lmgc_torch.cli; assert 'transformers' not in sys.modules")
    assert result.returncode == 0, result.stderr
