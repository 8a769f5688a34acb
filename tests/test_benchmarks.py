"""The benchmark helpers: peers round trip, captures repeat, samples have stand-ins."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("numpy")
# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import datasets
import fixed_model
import gradients
import measure
import networks
import pareto
import peers
import ratio
import speed

import lmgc_torch
from lmgc_torch import baselines

needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn's digits"
)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("elements", [0, 1, 3, 5000])
def test_peers_round_trip(threads: int, dtype: torch.dtype, elements: int) -> None:
    values = 0.01 * torch.randn(elements, generator=torch.Generator().manual_seed(1))
    data = measure.joined([values.to(dtype)])[dtype]
    for name, peer in peers.peers(threads).items():
        if peer.takes([dtype]):
            assert peer.decompress(peer.compress(data, dtype), dtype) == data, name
            # ZipNN changes its input in place, which must not reach ours.
            assert data == measure.joined([values.to(dtype)])[dtype], name


def test_byte_planes_group_bytes_of_equal_significance() -> None:
    words = torch.tensor([0x01020304, 0x11121314], dtype=torch.int32)
    planes = baselines.split_groups(words.numpy().tobytes(), 4)
    assert planes == [b"\x04\x14", b"\x03\x13", b"\x02\x12", b"\x01\x11"]


def test_measure_peer_handles_mixed_dtypes_and_reports_the_size() -> None:
    tensors = [torch.zeros(100, 10), torch.ones(50, dtype=torch.int64), torch.tensor(float("nan"))]
    row = measure.measure_peer("zeros", tensors, "zlib-6", peers.PEERS["zlib-6"])
    assert row.raw_bytes == 4000 + 400 + 4
    assert row.ratio < 5


def test_measure_peer_refuses_a_peer_that_loses_bits() -> None:
    liar = peers.Peer(lambda data, _: data[:1], lambda data, _: data)
    with pytest.raises(RuntimeError, match="does not give back"):
        measure.measure_peer("ones", [torch.ones(8)], "liar", liar)


def test_identical_compares_bits_not_values() -> None:
    zero, nan = torch.tensor([0.0]), torch.tensor([float("nan")])
    other_nan = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert measure.identical([nan], [nan.clone()])
    assert not measure.identical([nan], [other_nan])
    assert not measure.identical([zero], [-zero])
    assert not measure.identical([zero], [zero.view(1, 1)])
    assert not measure.identical([zero], [])


def test_table_and_json_hold_every_row(tmp_path: Path) -> None:
    rows = [measure.Row("a", "m", 200, 100, 1234.5, 0.5), measure.Row("b", "n", 10, 11, 1, 1)]
    lines = measure.table(rows).splitlines()
    assert len(lines) == 4
    assert "50.00" in lines[2]
    assert "1234" in lines[2]
    measure.write_json(tmp_path / "rows.json", rows)
    assert [row["ratio"] for row in json.loads((tmp_path / "rows.json").read_text())] == [50, 110]


def test_the_summary_compares_with_the_best_peer() -> None:
    sizes = {"ZipNN": 84, "zstd-3": 92, "lowrank": 42, "planes": 83}
    rows = [measure.Row("a", method, 100, size, 1, 1) for method, size in sizes.items()]
    head, _, line = ratio.summary([*rows, measure.Row("b", "zstd-3", 10, 9, 1, 1)]).splitlines()[:3]
    assert head == "| tensors | zstd-3 | ZipNN | `lowrank` | `planes` | below the best peer |"
    assert line == "| a | 92.00 | 84.00 | 42.00 | 83.00 | 50.0 % |"
    assert ratio.summary(rows[:1]).count("\n") == 2


def test_slow_calls_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PATIENCE", -1)
    calls: list[int] = []
    assert measure.best_of(lambda: calls.append(1) or len(calls), 5)[0] == 1


def low_rank_gradient(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    factors = [torch.randn(side, 12, generator=generator) for side in (rows, columns)]
    noise = torch.randn(rows, columns, generator=generator)
    return (1e-3 * (factors[0] @ factors[1].T + 0.05 * noise)).to(dtype)


def ideal_ratio(elements: fixed_model.Elements, digits: float, tensor: torch.Tensor) -> float:
    rest = fixed_model.kinds_bits(elements) + fixed_model.tail_bits(elements)
    return 100 * (digits + rest + elements.scale_bits) / (8 * tensor.nbytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("zeros", [0, 50])
def test_the_model_of_scale_agrees_with_the_encoder(dtype: torch.dtype, zeros: int) -> None:
    tensor = low_rank_gradient(128, 256, dtype)
    tensor.view(-1)[: 100 * zeros] = 0
    matrix, fmt = fixed_model.live_matrix(tensor), fixed_model.Format.of(tensor)
    elements = fixed_model.split(matrix, 0 * matrix, fmt)
    contexts = fixed_model.fit_contexts(elements, predicted=False)
    two = fixed_model.two_digits_bits(contexts)
    real = lmgc_torch.info(lmgc_torch.compress(tensor, method="scale")).ratio
    assert ideal_ratio(elements, two, tensor) == pytest.approx(real, rel=0.02)
    one = fixed_model.one_digit_bits(contexts, 16)
    assert 0.99 * two < one < 1.03 * two
    assert fixed_model.one_digit_bits(contexts, 4) > one


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(96, 256), (256, 96), (64, 16, 3, 3)])
def test_the_model_of_lowrank_agrees_with_the_encoder(dtype: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip("matplotlib")
    import low_rank

    side = torch.Size(shape[1:]).numel()
    tensor = low_rank_gradient(shape[0], side, gradients.DTYPES[dtype]).view(shape)
    rank, sections, size = low_rank.coded(tensor, "lowrank")
    assert rank > 0
    assert sum(sections.values()) == size
    fmt = fixed_model.Format.of(tensor)
    found = low_rank.best_view(tensor, fmt, rank)
    assert low_rank.modelled_bits(found, rank, fmt) / 8 == pytest.approx(
        size, rel=0.06
    )  # its noise is the usual one
    assert low_rank.estimated_bits(found, rank, fmt) / 8 == pytest.approx(size, rel=0.1)
    assert low_rank.estimated_bits(found, 0, fmt) > low_rank.estimated_bits(found, rank, fmt)


def test_plots_of_low_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    import low_rank

    for dtype in ("fp32", "bf16"):
        tensors = {"w": low_rank_gradient(64, 48, gradients.DTYPES[dtype]), "b": torch.ones(3)}
        torch.save(tensors, tmp_path / f"net_{dtype}.pt")
    files = [str(path) for path in sorted(tmp_path.glob("*.pt"))]
    assert low_rank.main([*files, "--images", str(tmp_path / "images")]) == 0
    images = {path.name for path in (tmp_path / "images").iterdir()}
    assert images == {"spectra.png", "size_by_rank.png", "parts.png"}
    assert capsys.readouterr().out.count("| net_bf16 |") == 3


def test_the_block_of_the_speeds_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "BLOCK_WIDTH", 64)
    workload = speed.block_workload("bf16", tmp_path)
    assert {tensor.dtype for tensor in workload.tensors()} == {torch.bfloat16}
    assert workload.megabytes == measure.raw_bytes(workload.tensors()) / 1e6
    assert all(min(tensor.shape) >= 64 for tensor in workload.tensors())
    monkeypatch.setattr(speed, "capture", None)
    assert speed.block_workload("bf16", tmp_path) == workload


def test_the_model_of_lm_is_measured_apart(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(60, 2, generator=generator) for _ in range(2)]
    tensors = {"w": (factors[0] @ factors[1].T).bfloat16(), "b": torch.ones(3)}
    torch.save(tensors, tmp_path / "a.pt")
    workload = speed.Workload("a", (tmp_path / "a.pt",), 0.02)
    threads = torch.get_num_threads()
    try:
        rows = {row.method: row for row in speed.rows_of(workload, ["lowrank", "lm"], 1, 1, False)}
    finally:
        torch.set_num_threads(threads)
    ours = ["lowrank", "lm", "lm, TorchScript", "its model", "its model, TorchScript", "memcpy"]
    assert [method for method in rows if method not in speed.PEERS] == ours
    assert rows["lm"].compressed_bytes < rows["lowrank"].compressed_bytes
    for one, model in (("lm", "its model"), ("lm, TorchScript", "its model, TorchScript")):
        assert rows[one].compressed_bytes == rows["lm"].compressed_bytes
        assert rows[model].compress_mb_s >= rows[one].compress_mb_s
        assert rows[model].decompress_mb_s >= rows[one].decompress_mb_s


def test_sizes_are_cut_from_the_files(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(700.0), "b": torch.ones(3, 5)}, tmp_path / "a.pt")
    files = (tmp_path / "a.pt",)
    assert speed.pieces_of("2M", files) == speed.Pieces("2M", files, 2 << 20, 1)
    pieces = speed.pieces_of("3x4K", files).tensors()
    assert [tuple(piece.shape) for piece in pieces] == [(1024,)] * 3
    assert torch.equal(torch.cat(pieces)[715:1415], torch.arange(700.0))
    for bad in ("4", "K", "4G", "x4K", "twox4K", "-4K"):
        with pytest.raises(ValueError, match="is no size"):
            speed.pieces_of(bad, files)


def test_rates_against_sizes_are_drawn(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(5000)}, tmp_path / "a.pt")
    picture, threads = tmp_path / "rates.svg", torch.get_num_threads()
    arguments = [str(tmp_path / "a.pt"), "--sizes", "4K", "16K", "2x4K", "--repeats", "1"]
    arguments += ["--methods", "planes", "--no-memory", "--plot", str(picture)]
    try:
        assert speed.main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    assert "planes" in picture.read_text()


def test_ratios_against_speeds_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": torch.randn(60, 3) @ torch.randn(3, 80)}, tmp_path / "a.pt")
    picture, threads = tmp_path / "pareto.svg", torch.get_num_threads()
    arguments = [str(tmp_path / "a.pt"), "--methods", "planes", "lowrank", "--efforts", "1", "9"]
    arguments += ["--threads", "1", "--repeats", "1", "--plot", str(picture)]
    try:
        assert pareto.main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("planes", "lowrank -1", "lowrank -9", "on the front:"))
    assert "lowrank" in picture.read_text()


def test_what_is_on_the_front() -> None:
    def row(size: int, rate: float) -> measure.Row:
        return measure.Row("a", "m", 100, size, rate, 1)

    rows = [row(50, 10), row(60, 20), row(60, 10), row(70, 15)]
    assert [pareto.is_on_front(one, rows) for one in rows] == [True, True, True, False]


def test_the_rate_of_what_a_part_leaves() -> None:
    assert speed.rate_without(2, 3) == pytest.approx(6)  # 1/2 - 1/3
    assert speed.rate_without(6, 6) == float("inf")
    assert "inf" in measure.table([measure.Row("a", "m", 100, 50, float("inf"), 1)])


@needs_digits
@pytest.mark.parametrize(("name", "shape"), [("cifar10", (3, 32, 32)), ("mnist", (1, 28, 28))])
def test_images_fall_back_to_digits(
    name: str, shape: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = datasets.images(name, tmp_path)
    assert images.shape[1:] == shape
    assert len(images) == len(labels) > 1000
    assert labels.unique().tolist() == list(range(10))
    assert images.mean().abs() < 1e-3
    assert "digits" in capsys.readouterr().err


def test_text_falls_back_to_the_standard_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(datasets.text(tmp_path)) > 100_000
    assert datasets.source("text", tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_capture_repeats_bit_for_bit(dtype: str, tmp_path: Path) -> None:
    def capture(seed: int) -> dict[int, gradients.Gradients]:
        return gradients.capture(
            "gpt",
            "text",
            steps=(0, 1),
            dtype=dtype,
            seed=seed,
            batch=2,
            options={"width": 16, "depth": 1, "heads": 2},
            folder=tmp_path,
        )

    first, again, other = capture(3), capture(3), capture(4)
    assert sorted(first) == [0, 1]
    assert {g.dtype for g in first[1].values()} == {gradients.DTYPES[dtype]}
    for step in (0, 1):
        assert list(first[step]) == list(again[step])
        assert measure.identical(list(first[step].values()), list(again[step].values()))
    assert not measure.identical(list(first[1].values()), list(other[1].values()))


def test_sample_keeps_whole_tensors_in_order_within_the_limit() -> None:
    captured = {f"p{i}": torch.zeros(1000 * (i + 1)) for i in range(5)}  # 4 kB to 20 kB
    kept = gradients.sample(captured, 0.03, seed=1)
    assert 0 < measure.raw_bytes(kept.values()) <= 30_000
    assert list(kept) == sorted(kept)
    assert gradients.sample(captured, 1.0, seed=1).keys() == captured.keys()


def test_sets_do_not_share_models_or_seeds() -> None:
    report, train = gradients.SETS["report"], gradients.SETS["train"]
    assert not {run.model for run in report} & {run.model for run in train}
    assert not {run.seed for run in report} & {run.seed for run in train}
    for name, runs in gradients.SETS.items():
        stems = [run.stem(step) for run in runs for step in run.steps]
        assert len(stems) == len(set(stems)), name
        assert {run.model for run in runs} <= gradients.MODELS.keys()


@pytest.mark.parametrize(("name", "side"), [("convnet", 28), ("resnet", 32), ("vgg", 32)])
def test_image_networks_give_ten_logits(name: str, side: int) -> None:
    model = networks.NETWORKS[name](1, side, width=4)
    assert model(torch.randn(2, 1, side, side)).shape == (2, 10)
