"""Checkpoints as priors: the same logits as transformers', the right tokens, frames that decode.

All models are small, with random weights made here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import gradient, identical
from small_checkpoints import (
    CASES,
    IDS,
    LLAMA,
    byte_level,
    make_model,
    sample_lines,
    tokenizers,
    transformers,
)

import lmgc_torch
from lmgc_torch import Prior
from lmgc_torch.export import CheckpointError, export_prior
from lmgc_torch.export.vocabulary import find_vocabulary

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


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


def test_byte_level_tokenizers():
    tokenizer = byte_level()
    found = find_vocabulary(tokenizer, config_of(tokenizer))
    texts = dict(zip(found.tokens, found.ids, strict=True))
    assert len(texts) == len(found.tokens)
    assert found.tokens[:17] == [*"0123456789abcdef", "<bos>"]
    for text in [*"0123456789abcdef", " ", ",", ", ", ";", "0x"]:
        assert tokenizer.decode([texts[text]]) == text
    assert merged_digits(tokenizer)
    assert texts["<bos>"] == tokenizer.eos_token_id
    assert found.separators == lmgc_separators("none space comma comma_space semicolon 0x")
    # A character beyond ASCII is two bytes of UTF-8; where they are no token, its own byte is.
    vocab = tokenizer.get_vocab()
    assert texts["\x00"] == vocab["\u0100"]  # as byte-level vocabularies write bytes
    assert texts["\xe9"] == vocab["\xe9"]
    with_e_acute = Known({**vocab, "\xc3\xa9": len(vocab)})
    found = find_vocabulary(with_e_acute, config_of(tokenizer, vocab_size=len(vocab) + 1))
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
