"""The report on LM-GC's paper: formula, codecs, what lossy payloads cost, and a whole run."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("numpy")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import helpers
import numpy as np
from paper import cells, codecs, draws, hex_text, lossy, released, report, run, tables
from paper.hex_model import VOCAB, HexTransformer, save_prior
from paper.hex_text import Text
from paper.settings import DEFAULT, QUICK, codec_jobs, lm_jobs

import lmgc_torch

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "notebooks" / "lmgc_paper.ipynb"


@pytest.fixture(scope="module")
def gradient() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 1e-3 * torch.randn(4096, generator=generator)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the report with tiny sizes."""
    out = tmp_path_factory.mktemp("paper")
    assert run.main(["--quick", "--out", str(out)]) == 0
    return out / "results.json"


# ---- the released formula ------------------------------------------------------------------------


@pytest.mark.parametrize(("symbols", "percent"), [(16, 69), (256, 82)])
def test_the_formula_makes_random_symbols_small(symbols: int, percent: int) -> None:
    drawn = np.random.default_rng(0).integers(symbols, size=20_000)
    lengths = released.lengths(np.full((len(drawn), symbols), 1 / symbols), drawn)
    raw = len(drawn) * math.log2(symbols)
    assert lengths.code == pytest.approx(raw)
    assert 100 * lengths.released / raw == pytest.approx(percent, abs=0.6)


def test_the_formula_can_be_evaluated_by_hand() -> None:
    shares = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    lengths = released.lengths(shares, np.array([1, 2]))
    assert lengths.code == 4
    assert lengths.released == pytest.approx(math.log2(3) + 2)


def test_a_coder_that_is_given_the_formula_writes_what_we_say() -> None:
    """Digits among tokens of a larger vocabulary, as in the released code."""
    generator = np.random.default_rng(1)
    vocabulary, count = 500, 2000
    digits = np.sort(generator.choice(np.arange(1, vocabulary, 2), 16, replace=False))
    shares = generator.dirichlet(np.full(16, 2.0), count)
    probability = np.full((count, vocabulary), 1e-3 / vocabulary)
    probability[:, digits] += 0.999 * shares
    probability /= probability.sum(1, keepdims=True)
    drawn = np.array([generator.choice(16, p=row) for row in shares])
    reported = released.lengths(probability, digits[drawn]).released
    ends = probability / np.cumsum(probability, axis=1)
    written = coded_bits(np.concatenate([np.zeros((count, 1)), ends], 1), digits[drawn])
    assert written == pytest.approx(reported, rel=0.01)
    assert reported < 0.85 * released.lengths(probability, digits[drawn]).code


def coded_bits(distribution: np.ndarray, symbols: np.ndarray) -> int:
    """Bits that an arithmetic coder writes: 32-bit interval, 16-bit distribution."""
    low, high, pending, bits = 0, 2**32 - 1, 0, 0
    for row, symbol in zip(np.rint(distribution * 65536).astype(int), symbols, strict=True):
        span = high - low + 1
        high = low + (span * int(row[symbol + 1]) >> 16) - 1
        low = low + (span * int(row[symbol]) >> 16)
        while True:
            if high < 2**31 or low >= 2**31:
                bits, pending = bits + 1 + pending, 0
            elif low >= 2**30 and high < 3 * 2**30:
                pending += 1
                low, high = low - 2**30, high - 2**30
            else:
                break
            low, high = 2 * low % 2**32, (2 * high + 1) % 2**32
    return bits + pending + 1


def test_probabilities_have_the_coders_floor() -> None:
    shares = released.probabilities(np.array([[0.0, -200.0], [3.0, 3.0]]))
    assert shares.sum(1) == pytest.approx(1)
    assert shares.min() == pytest.approx(2**-16)


# ---- codecs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("elements", [1, 7, 128, 1000])
def test_codecs_round_trip(elements: int) -> None:
    values = torch.randn(elements, generator=torch.Generator().manual_seed(2))
    values[0] = float("nan")
    data = values.numpy().tobytes()
    found = codecs.codecs()
    assert {"gzip", "LZMA"} <= found.keys()
    for name, peer in found.items():
        assert peer.decompress(peer.compress(data, torch.float32), torch.float32) == data, name
        whole = codecs.coded_size(peer, data, torch.float32)
        chunked = codecs.coded_size(peer, data, torch.float32, chunk=64)
        assert 0 < whole <= chunked, name
        if peer.takes([torch.uint8]):
            odd = data[:-1]
            assert peer.decompress(peer.compress(odd, torch.uint8), torch.uint8) == odd, name


def test_a_codec_that_loses_bytes_has_no_size() -> None:
    liar = codecs.Peer(lambda data, _: data[:1], lambda data, _: data)
    with pytest.raises(RuntimeError, match="give back"):
        codecs.coded_size(liar, b"abc", torch.uint8)


def test_pictures_are_nearly_square() -> None:
    assert codecs.sides(512) == (16, 32)
    assert codecs.sides(7) == (1, 7)


# ---- lossy payloads ------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "error"), [(1, 0.7), (8, 0.02), (16, 1e-4)])
def test_quantizers_send_codes_and_two_numbers(
    gradient: torch.Tensor, bits: int, error: float
) -> None:
    made = lossy.quantize(gradient, bits)
    assert made.payload.dtype == torch.uint8
    assert made.payload.nbytes == gradient.numel() * bits // 8
    assert made.side_bytes == 8
    assert (made.restored - gradient).norm() < error * gradient.norm()
    assert lossy.bytes_per_float(f"{bits} bits") == bits / 8


def test_quantizers_take_constants_and_know_their_bits() -> None:
    for bits in (1, 8, 16):
        assert lossy.quantize(torch.zeros(16), bits).restored.abs().max() < 1e-38
    with pytest.raises(ValueError, match="1, 8 or 16"):
        lossy.quantize(torch.zeros(8), 4)


def test_sixteen_bit_codes_have_their_high_byte_first() -> None:
    made = lossy.quantize(torch.tensor([0.0, 65535.0, 256.0]), 16)
    assert made.payload.tolist() == [0, 0, 255, 255, 1, 0]


def test_sparsifiers_count_the_places(gradient: torch.Tensor) -> None:
    top = lossy.top_k(gradient, 0.1)
    assert len(top.payload) == 410
    assert top.side_bytes == 4096 // 8  # the list would take 410 * 12 bits
    assert lossy.top_k(gradient, 0.01).side_bytes == math.ceil(41 * 12 / 8)
    kept = top.restored != 0
    assert torch.equal(top.restored[kept], top.payload)
    assert top.payload.abs().min() >= gradient[~kept].abs().max()
    drawn = lossy.random_k(gradient, 0.5, seed=3)
    assert drawn.side_bytes == lossy.SEED_BYTES
    assert torch.equal(drawn.payload, gradient[drawn.restored != 0])


def test_index_bytes_takes_the_smaller_form() -> None:
    assert lossy.index_bytes(1024, 1) == 2
    assert lossy.index_bytes(1024, 1000) == 128
    assert lossy.index_bytes(1, 1) == 1


@pytest.mark.parametrize(
    "data", [b"", b"a", b"ab", b"aa", b"aab", b"x" * 1000, bytes(range(256)) * 3, b"aabbb" * 40]
)
def test_runs_come_back(data: bytes) -> None:
    given = torch.tensor(list(data), dtype=torch.uint8)
    packed = lossy.run_length(given)
    assert torch.equal(lossy.expand_runs(packed), given)
    assert len(packed) <= len(data) + len(data) // 128 + 1


def test_long_runs_are_short() -> None:
    assert len(lossy.run_length(torch.zeros(129, dtype=torch.uint8))) == 2


# ---- text and model ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "period", "window"),
    [
        (Text("none", None), (1, 8), 64),
        (Text("none", 3), (1, 8), 64),
        (Text("space", 4), (1, 9), 56),
        (Text("comma", 3), (3, 28), 54),
        (Text("0x", 8), (2, 17), 60),
        (Text("iso-8859-1", None), (1, 4), 128),
    ],
)
def test_windows_are_those_of_the_format(text: Text, period: tuple[int, int], window: int) -> None:
    assert text.period(4) == period
    assert text.window_elements(4, 512) == window
    values = torch.randn(3 * window)
    cut = hex_text.windows(values, text, 512, 3 * window)
    assert sum(map(len, cut.values())) == 3
    assert max(cut) <= 512


def test_the_vocabulary_has_every_text() -> None:
    vocabulary = hex_text.Vocabulary(VOCAB)
    assert len(set(VOCAB)) == len(VOCAB)
    for job in lm_jobs(DEFAULT):
        assert hex_text.needed(job.text) <= set(VOCAB)
        tokens = lmgc_torch.tokenize(torch.ones(6), **job.text.options)
        assert vocabulary.ids(job.text, tokens).min() >= 0
    with pytest.raises(ValueError, match="bytes"):
        hex_text.Vocabulary([*"0123456789abcdef", "<bos>"]).symbols(Text("iso-8859-1", None))


@pytest.mark.usefixtures("one_thread")
def test_the_model_gives_the_same_step_by_step() -> None:
    torch.manual_seed(0)
    model = HexTransformer(32, 2).eval()
    tokens = torch.randint(len(VOCAB), (3, 300), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = model(tokens, tokens)
        state, steps = model.init_state(3), []
        for time in range(tokens.size(1)):  # past the end of the first block of the cache
            logits, state = model.step(tokens[:, time], tokens[:, :0], state)
            steps.append(logits)
    assert torch.allclose(torch.stack(steps, 1), whole, atol=1e-4)


def test_slices_are_runs_of_the_gradient() -> None:
    vector = torch.arange(10_000.0)
    cut = draws.slices(vector, 3000, seed=1)
    assert len(cut) == 2048
    assert torch.equal(cut.view(-1, 1024).diff(dim=1), torch.ones(2, 1023))
    assert not torch.equal(cut, draws.slices(vector, 3000, seed=2))
    assert torch.equal(draws.slices(vector[:100], 3000, seed=1), vector[:100])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("text", [Text("none", None), Text("comma", 3), Text("iso-8859-1", None)])
def test_sizes_are_code_lengths_and_a_container(tmp_path: Path, text: Text) -> None:
    model = HexTransformer(32, 1)
    torch.nn.init.zeros_(model.head.weight)
    zeros = torch.tensor([token in ("0", "\0") for token in VOCAB])
    model.head.bias.data = torch.where(zeros, 5.0, 0.0)
    save_prior(model, tmp_path / "prior.pt")
    files = run.priors_by_window(tmp_path / "prior.pt", (32, 64, 128), tmp_path, limit=64)
    assert list(files) == [32, 64]
    payload = torch.zeros(1024)
    payload[::9] = torch.randn(114, generator=torch.Generator().manual_seed(3))
    sizes, raw = cells.lm_sizes([payload, payload[:-1]], text, files[64], 64)
    assert raw == [False, False]
    tokens, lengths = cells.teacher_forced(payload, text, files[64], 64)
    assert lengths.code / 8 < sizes[0] < lengths.code / 8 + 350
    assert lengths.released < lengths.code < 0.6 * 8 * payload.nbytes
    assert tokens == pytest.approx(
        1024 * text.tokens_per_float(), abs=180
    )  # none at a window's end


@pytest.mark.parametrize("portable", [True, False])
def test_other_priors_are_asked_for_what_they_can(tmp_path: Path, portable: bool) -> None:
    file = helpers.write_prior(tmp_path / "table.pt", context=64, portable=portable)
    possible = run.possible(lm_jobs(DEFAULT), {DEFAULT.window: str(file)})
    missing = {job.text.separator for job in {*lm_jobs(DEFAULT)} - {*possible}}
    assert missing == {"iso-8859-1", "space"}  # the latter in longer and shorter windows
    values = torch.randn(64, generator=torch.Generator().manual_seed(4))
    _, lengths = cells.teacher_forced(values, Text("none", None), str(file), 64)
    assert lengths.code / 8 < 1.6 * values.nbytes  # a wrong unit would take many times that


# ---- the whole report ----------------------------------------------------------------------------


def test_draws_and_training_share_no_network_and_no_seed() -> None:
    assert not set(draws.SOURCES.values()) & set(draws.TRAINING)
    assert DEFAULT.draws < run.TRAINING_SEED


def test_jobs_are_not_repeated() -> None:
    for settings in (DEFAULT, QUICK):
        jobs = lm_jobs(settings) + codec_jobs(settings)
        assert len(jobs) == len(set(jobs))


def test_quick_run_fills_every_cell(quick: Path) -> None:
    results = json.loads(quick.read_text())
    assert results["left_out"] == 0
    for cell in results["cells"]:
        assert cell["bytes"] > 0
        # Nothing grows by more than its container: 512-byte chunks have the largest.
        assert cell["bytes"] < 1.3 * cell["raw_bytes"] + 250, cell
        if cell["method"] == "LM":
            assert cell["released"] < cell["code_length"]
    text = (quick.parent / "report.md").read_text()
    for title in ("Table 1", "Table 3", "Table 4", "Fig. 2", "Fig. 3", "Fig. 4"):
        assert f"## {title}" in text
    assert "| - |" not in text.split("| separator |")[1].split("## Fig. 4")[0]
    images = {path.name for path in quick.parent.glob("*.png")}
    assert images == {"paper_windows.png", "paper_groups.png", "paper_lossy.png"}


def test_random_bytes_are_stored_raw_but_reported_small(quick: Path) -> None:
    cells_found = json.loads(quick.read_text())["cells"]
    (noise,) = tables.select(cells_found, payload=cells.NOISE, method="LM")
    assert noise["stored_raw"]
    assert noise["bytes"] > noise["raw_bytes"]
    assert tables.released_ratio(noise) < 76


def test_captures_and_model_are_used_again(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(draws.gradients, "capture", never)
    monkeypatch.setattr(run.hex_train, "train", never)
    stages = run.Stages(workers=0)
    files, training = run.capture_all(QUICK, quick.parent / "gradients", stages)
    run.trained_prior(QUICK, training, quick.parent)
    assert len(files["cifar10"]) == QUICK.draws


def test_a_prior_that_lacks_tokens_or_positions_leaves_cells_out(quick: Path) -> None:
    prior = next(quick.parent.glob("prior-*[0-9a-f].pt"))
    priors = run.priors_by_window(prior, (64, 128), quick.parent / "gradients", limit=64)
    assert list(priors) == [64]
    jobs = run.possible(lm_jobs(QUICK), priors)
    assert jobs
    assert {job.window for job in jobs} == {64}


def test_statistics_are_over_draws() -> None:
    found = [{"draw": draw, "bytes": size, "raw_bytes": 200} for draw, size in enumerate((90, 110))]
    mean, deviation = tables.over(found, tables.ratio)
    assert (mean, deviation) == (50, pytest.approx(math.sqrt(50)))
    assert tables.select(found, bytes=110) == [found[1]]
    assert tables.gains(found, found[::-1], tables.ratio)[1].startswith("0.00")
    with pytest.raises(ValueError, match="several"):
        tables.select([*found, found[0]], raw_bytes=200)
    assert tables.shown(None) == tables.NOTHING
    assert "~~" in tables.shown(tables.Figure(1, 0), undecodable=True)
    assert report.UNDECODABLE.startswith("†")


def test_notebook_reads_the_results(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMGC_PAPER_OUT", str(quick.parent))
    monkeypatch.setenv("LMGC_QUICK", "1")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    *tables, speeds = helpers.run_notebook(NOTEBOOK, monkeypatch)
    assert len(tables) == 8
    ratios = {
        cells[0]: float(cells[1])
        for cells in (line.strip("| ").split(" | ") for line in str(speeds).splitlines()[2:])
    }
    assert ratios["lm"] <= ratios["lowrank"] < ratios["planes"]
    assert {"lmgc", "scale", "byte planes + xz-6"} <= set(ratios)
    out = capsys.readouterr().out
    assert "code length 100.0 %, formula 69" in out
    assert "every bit came back" in out
