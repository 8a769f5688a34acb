"""The controller's choices, on a simulated link and codec."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lmgc_torch.distributed import controller as module
from lmgc_torch.distributed.controller import CHECK_EVERY, PLAIN, SPELL, Controller
from lmgc_torch.distributed.pipeline import Measured

BYTES = 1 << 22
WARM_UP = 33  # steps; the trials take fewer
CODEC_RATE = {  # s / byte
    PLAIN: 0.0,
    "past": 1 / 14e6,
    "lowrank": 1 / 20e6,
    "scale": 1 / 100e6,
    "planes": 1 / 800e6,
}
RATIO = {PLAIN: 1.0, "past": 0.63, "lowrank": 0.65, "scale": 0.82, "planes": 0.83}


class World:
    """Buckets whose steps take what the slower of codec and link needs."""

    def __init__(self, monkeypatch, link, method="auto", buckets=4, smallest=0):
        self.now = 0.0
        self.link = link  # bytes / s
        self.agreements = 0
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        self.controller = Controller(method, smallest, self.agree)
        self.buckets = buckets
        self.ratio = dict(RATIO)

    def agree(self, values):
        self.agreements += 1
        return values

    def step(self):
        self.controller.begin_step()
        codec = wire = 0.0
        methods = []
        for bucket in range(self.buckets):
            method = self.controller.method_of(bucket, BYTES)
            methods.append(method)
            sent = int(BYTES * self.ratio[method])
            own = BYTES * CODEC_RATE[method]
            self.controller.record(bucket, method, Measured(own, sent / self.link, sent))
            codec, wire = codec + own, wire + sent / self.link
        begin = self.now
        self.now += 0.05 + max(codec, wire)
        return methods, self.now - begin

    def run(self, steps):
        return [self.step() for _ in range(steps)]


@pytest.mark.parametrize(
    ("link", "expected"),
    [(2e6, {"past"}), (1.2e7, {"lowrank"}), (50e6, {"lowrank", "scale", "planes"}), (5e9, {PLAIN})],
)
def test_the_fastest_is_chosen(monkeypatch, link, expected):
    world = World(monkeypatch, link)
    world.run(WARM_UP)
    methods, _ = world.step()
    assert set(methods) <= expected


@pytest.mark.parametrize("link", [1e6, 12.5e6, 25e6, 50e6, 125e6, 1e9, 1e10])
def test_no_link_makes_steps_slower_than_plain_once_settled(monkeypatch, link):
    plain = World(monkeypatch, link, method="raw")
    plain.ratio["raw"] = 1.0
    monkeypatch.setitem(CODEC_RATE, "raw", 0.0)
    seconds_plain = plain.step()[1]
    world = World(monkeypatch, link)
    world.run(WARM_UP)
    seconds = sum(taken for _, taken in world.run(600)) / 600
    assert seconds <= 1.03 * seconds_plain


def test_a_mix_is_found_where_codec_and_link_are_both_busy(monkeypatch):
    world = World(monkeypatch, link=22e6, buckets=8)
    world.run(WARM_UP)
    methods, taken = world.step()
    assert len(set(methods)) > 1
    uniform = min(0.05 + 8 * BYTES * max(CODEC_RATE[m], RATIO[m] / 22e6) for m in CODEC_RATE)
    assert taken < uniform


def test_a_link_that_becomes_fast_ends_compression(monkeypatch):
    world = World(monkeypatch, link=2e6)
    world.run(WARM_UP)
    assert set(world.step()[0]) == {"past"}
    world.link = 5e9
    world.run(CHECK_EVERY + 10)
    assert set(world.step()[0]) == {PLAIN}


def test_a_link_that_becomes_slow_begins_it(monkeypatch):
    world = World(monkeypatch, link=5e9)
    world.run(WARM_UP)
    assert set(world.step()[0]) == {PLAIN}
    world.link = 2e6
    world.run(2 * CHECK_EVERY + WARM_UP)
    assert set(world.step()[0]) == {"past"}


def test_settled_steps_hardly_talk(monkeypatch):
    world = World(monkeypatch, link=2e6)
    world.run(WARM_UP)
    before = world.agreements
    world.run(CHECK_EVERY - WARM_UP)
    assert world.agreements - before <= CHECK_EVERY / SPELL


def test_a_codec_that_becomes_slow_ends_compression_soon(monkeypatch):
    world = World(monkeypatch, link=12e6)
    world.run(WARM_UP)
    assert PLAIN not in world.step()[0]
    for method in ("lowrank", "scale", "planes"):
        monkeypatch.setitem(CODEC_RATE, method, 1 / 1e6)
    world.run(2 * SPELL + 3)
    assert set(world.step()[0]) == {PLAIN}


def test_small_buckets_are_never_compressed(monkeypatch):
    world = World(monkeypatch, link=2e6, smallest=BYTES + 1)
    assert all(set(methods) == {PLAIN} for methods, _ in world.run(50))


def test_a_fixed_method_stays(monkeypatch):
    world = World(monkeypatch, link=5e9, method="lowrank")
    assert all(set(methods) == {"lowrank"} for methods, _ in world.run(50))
    assert world.agreements == 0


def test_a_restart_begins_anew(monkeypatch):
    world = World(monkeypatch, link=2e6)
    world.run(WARM_UP)
    world.controller.restart()
    world.buckets = 2
    assert set(world.step()[0]) == {PLAIN}
    world.run(WARM_UP)
    assert set(world.step()[0]) == {"past"}
