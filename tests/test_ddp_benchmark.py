"""The benchmark of data-parallel training: a small run over loopback, rows, links, the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")
# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import cluster_model
import ddp
import namespaces
from ddp_rank import WORKLOADS, Cell, Measured, plain_data


def cell_of(names: tuple[str, ...], *, mbit: float | None = 100, warmup: int = 2) -> Cell:
    return Cell("tiny_fp32", 2, mbit, names, warmup=warmup, steps=4, block=2)


def test_a_small_run_over_loopback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sub" / "ddp.json"
    options = ["--loopback", "--workloads", "tiny_fp32", "--communications", "compute", "plain"]
    options += [
        "bf16",
        "lowrank",
        "--warmup",
        "1",
        "--steps",
        "2",
        "--block",
        "1",
        "--json",
        str(out),
    ]
    assert ddp.main(options) == 0
    printed = capfd.readouterr().out
    assert "LOOPBACK WITHOUT A LIMIT" in printed
    assert "| tiny_fp32 | plain | 2 | none | 25 |" in printed
    rows = {row["communication"]: row for row in json.loads(out.read_text())}
    assert list(rows) == ["compute", "plain", "bf16", "lowrank"]
    assert all(len(row["step_seconds"]) == 3 for row in rows.values())
    assert all(0 < row["loss"] < 10 for row in rows.values())
    assert rows["plain"]["speedup"] == 1
    assert rows["plain"]["sent_mb"] is None  # loopback counts what everyone sends
    assert rows["bf16"]["identical"] is False
    assert rows["lowrank"]["identical"] is True
    assert len(rows["lowrank"]["statistics"]) == 2
    assert all(one["ratio"] < 90 for one in rows["lowrank"]["statistics"])


def test_a_rank_that_fails_ends_the_others(tmp_path: Path) -> None:
    cell = cell_of(("plain", "no such method"), mbit=None)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        ddp.run_ranks(cell, namespaces.loopback(2), ddp.free_port(), tmp_path)


def test_rows_leave_the_warm_up_out_and_take_the_slowest_rank() -> None:
    plain = [[9.0, 9.0, 2.0, 2.0, 3.0, 3.0], [9.0, 9.0, 2.0, 4.0, 3.0, 3.0]]
    ours = [[9.0, 9.0, 1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 1.0, 2.0, 1.0, 1.0]]
    results = [
        {
            "plain": Measured(plain[rank], 4_000_000, 8_000_000, loss=2.0),
            "auto": Measured(ours[rank], 2_000_000, 4_000_000, loss=3.0, identical=rank == 0),
        }
        for rank in range(2)
    ]
    rows = {row.communication: row for row in ddp.rows_of(cell_of(("plain", "auto")), results)}
    assert rows["plain"].seconds == 3.0
    assert rows["plain"].sent_mb == 1.0
    assert rows["plain"].identical is None
    assert rows["auto"].seconds == 1.0
    assert rows["auto"].speedup == 2.5
    assert rows["auto"].speedup_range == (2.0, 3.0)
    assert (rows["auto"].sent_mb, rows["auto"].received_mb) == (0.5, 1.0)
    assert rows["auto"].identical is False  # one rank's weights differ
    assert [line[0] for line in ddp.lines_of(list(rows.values()))[1:]] == ["tiny_fp32"] * 2


def test_the_warm_up_is_one_turn_and_others_are_whole() -> None:
    assert Cell("tiny_fp32", 2, None, ("plain",), warmup=7, steps=6, block=5).turns == [7, 5, 5]


def test_without_plain_there_is_no_ratio() -> None:
    results = [{"auto": Measured([1.0] * 6)} for _ in range(2)]
    assert ddp.rows_of(cell_of(("auto",)), results)[0].speedup is None


def test_communications_suit_the_workload() -> None:
    names = ("plain", "bf16", "powersgd", "auto", "auto, matched")
    assert ddp.suited(names, "gpt_fp32", 4) == names
    assert ddp.suited(names, "gpt_bf16", 2) == ("plain", "auto")


def test_statistics_become_plain_data() -> None:
    class Statistics:
        methods = {0: "planes"}  # noqa: RUF012
        raw_bytes = 7

        @property
        def ratio(self) -> float:
            return 50.0

        def reset(self) -> None:
            pass

    assert plain_data([Statistics()]) == [
        {"methods": {"0": "planes"}, "raw_bytes": 7, "ratio": 50.0}
    ]


def test_links_shape_what_they_join_and_leave_nothing() -> None:
    reason = namespaces.obstacle()
    if reason is not None:
        pytest.skip(reason)
    with namespaces.links(2, 50) as ports:
        assert [port.address for port in ports] == ["10.77.0.1", "10.77.0.2"]
        names = [port.command[-1] for port in ports]
        assert all(Path("/run/netns", name).exists() for name in names)
        assert set(namespaces.remove_leftovers()).isdisjoint(names)  # this process lives
    assert not any(Path("/run/netns", name).exists() for name in names)


def test_a_small_run_over_links_counts_bytes() -> None:
    reason = namespaces.obstacle()
    if reason is not None:
        pytest.skip(reason)
    names = ("compute", "plain", "raw")
    cell = Cell("tiny_fp32", 2, 1000, names, warmup=0, steps=2, block=2)
    rows = {row.communication: row for row in ddp.run_cell(cell)}
    gradient = sum(p.nbytes for p in WORKLOADS["tiny_fp32"].model().parameters()) / 1e6
    assert rows["compute"].sent_mb < 0.1 * gradient  # barriers only
    for name in ("plain", "raw"):
        assert gradient < rows[name].sent_mb < 1.5 * gradient
        assert gradient < rows[name].received_mb < 1.5 * gradient


# ---- the model of larger clusters ----------------------------------------------------------------

CODEC = cluster_model.Codec(100, 400, 0.5, 200, 800, 0.7)


def test_plain_is_a_ring() -> None:
    assert cluster_model.plain_seconds(1000, 2, 100) == pytest.approx(10)  # half there, half back
    assert cluster_model.plain_seconds(1000, 4, 100) == pytest.approx(15)


def test_ours_takes_what_link_or_codec_needs() -> None:
    # Of 1000 bytes each of 4 ranks owns 250: 750 go to the others, and come from them.
    wire = cluster_model.wire_seconds(1000, 4, 10, CODEC)
    assert wire == pytest.approx(750 * (0.5 + 0.7) / 10)
    codec = cluster_model.codec_seconds(1000, 4, CODEC)
    assert codec == pytest.approx(750 / 100 + 750 / 400 + 250 / 200 + 750 / 800)
    assert cluster_model.our_seconds(1000, 4, 10, CODEC) == wire
    assert cluster_model.our_seconds(1000, 4, 1e9, CODEC) == codec


def test_twice_the_threads_take_half_the_time_and_save_as_much() -> None:
    twice = CODEC.faster(2)
    assert cluster_model.codec_seconds(1, 8, twice) == cluster_model.codec_seconds(1, 8, CODEC) / 2
    assert cluster_model.wire_seconds(1, 8, 9, twice) == cluster_model.wire_seconds(1, 8, 9, CODEC)


@pytest.mark.parametrize("ranks", [2, 8, 1024])
def test_at_the_break_even_link_both_take_the_same_time(ranks: int) -> None:
    link = cluster_model.break_even_link(ranks, CODEC)
    plain = cluster_model.plain_seconds(1000, ranks, link)
    assert cluster_model.our_seconds(1000, ranks, link, CODEC) == pytest.approx(plain)
    assert cluster_model.our_seconds(1000, ranks, link / 2, CODEC) < 2 * plain
    assert cluster_model.our_seconds(1000, ranks, link * 2, CODEC) > plain / 2


def test_a_codec_that_saves_nothing_never_pays() -> None:
    assert cluster_model.break_even_link(8, cluster_model.Codec(1, 1, 1.0, 1, 1, 1.0)) == 0


def test_the_best_choice_mixes_where_link_and_codec_wait_for_each_other() -> None:
    slow = cluster_model.Codec(100, 100, 0.25, 100, 100, 0.25)
    assert cluster_model.best(1000, 2, 1e-3, {"slow": slow}) == (("slow",), pytest.approx(4))
    assert cluster_model.best(1000, 2, 1e9, {"slow": slow})[1] == pytest.approx(1)
    # At 50 bytes/s plain takes 20 s of the link, slow 5 s of it and 20 s of the codec: of slow
    # 20 / 35 keep both busy for 20 - 15 * 20 / 35 s.
    names, gain = cluster_model.best(1000, 2, 50, {"slow": slow})
    assert names == ("plain", "slow")
    assert gain == pytest.approx(20 / (20 - 15 * 20 / 35))


def test_codecs_are_measured_once_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(cluster_model, "AVERAGED", 2)
    monkeypatch.setattr(cluster_model, "TRAINED", 1)
    monkeypatch.setattr(cluster_model, "STEPS", 2)
    files = ["--rates", str(tmp_path / "rates.json"), "--image", str(tmp_path / "model.png")]
    assert cluster_model.main(["--workloads", "tiny_fp32", *files]) == 0
    first = capsys.readouterr()
    assert "COMPUTED, not measured" in first.out
    assert first.out.count("| `lowrank` |") == 1
    assert first.out.count("Gbit/s | ") == len(cluster_model.LINKS)
    assert (tmp_path / "model.png").stat().st_size > 0
    assert cluster_model.main(["--workloads", "tiny_fp32", *files]) == 0
    assert capsys.readouterr().out == first.out
