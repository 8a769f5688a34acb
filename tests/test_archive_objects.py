"""Archives of objects that hold tensors: `save` and `load`."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import DTYPES, equal, from_bytes, gradient, identical, to_bytes
from hypothesis import given, reject
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import CorruptArchiveError, CorruptFrameError, load, load_file, save, save_file
from lmgc_torch.archive import ArchiveReader, objects

pytestmark = pytest.mark.usefixtures("one_thread")


def there_and_back(content: object, folder: Path) -> Any:
    save(content, folder / "a.lmgc", method="planes")
    return load(folder / "a.lmgc")


def test_a_checkpoint(tmp_path: Path):
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 30), torch.nn.BatchNorm1d(30), torch.nn.Linear(30, 5)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    model(torch.randn(8, 20)).square().mean().backward()
    optimizer.step()
    scheduler.step()
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "epoch": 3,
        "best": math.inf,
        "args": {"name": "run", "layers": (20, 30, 5), "dtype": torch.bfloat16, "resume": None},
    }
    back = there_and_back(checkpoint, tmp_path)
    assert equal(back, checkpoint)
    assert back["model"]._metadata == checkpoint["model"]._metadata
    model.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    scheduler.load_state_dict(back["scheduler"])
    names = ArchiveReader.open(tmp_path / "a.lmgc").names
    assert "model.0.weight" in names
    assert "optimizer.state.0.exp_avg" in names
    # The same as torch.save and torch.load with weights_only=True.
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    assert equal(back, torch.load(file, weights_only=True))


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()), max_size=6)
    | st.binary(max_size=6)
    | st.binary(max_size=6).map(bytearray)
    | st.lists(st.integers(0, 2**40), max_size=4).map(torch.Size)
    | st.sampled_from(DTYPES)
    | st.sampled_from(["cpu", "cuda", "cuda:3", "meta"]).map(torch.device)
    | st.tuples(st.sampled_from(DTYPES), st.binary(min_size=16, max_size=16)).map(
        lambda pair: from_bytes(pair[1], pair[0], [-1])
    )
)
KEYS = st.integers() | st.text(max_size=4) | st.booleans() | st.none() | st.binary(max_size=4)
KEYS |= st.tuples(st.integers(), st.text(max_size=2))
OBJECTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict)
        | st.dictionaries(KEYS, st.integers(), max_size=4).map(Counter)
        | st.sets(KEYS, max_size=4)
    ),
    max_leaves=12,
)


@given(OBJECTS)
def test_any_object(tmp_path_factory, content: object):
    assert equal(there_and_back(content, tmp_path_factory.getbasetemp()), content)


@given(OBJECTS)
def test_as_torch_does_it(content: object):
    """What an archive holds is what torch.save and weights_only loading give back."""
    tree, tensors = objects.encode(content)
    back = objects.decode(json.loads(json.dumps(tree)), [tensor for _, tensor in tensors])
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    try:
        expected = torch.load(file, weights_only=True)
    except pickle.UnpicklingError:  # empty bytes, for one, are not allowed
        reject()
    assert equal(expected, back)


@pytest.mark.parametrize(
    "value",
    [-0.0, math.nan, -math.nan, math.inf, 5e-324, 1.0, 1, True, 2**53 + 1],
)
def test_numbers(tmp_path: Path, value: object):
    assert equal(there_and_back([value, {value: 0}], tmp_path)[0], value)


def test_numbers_that_python_does_not_print(tmp_path: Path):
    content = {10**5000: torch.ones(1), -(10**5000): 10**5000}
    assert equal(there_and_back(content, tmp_path), content)
    with pytest.raises(TypeError, match="object"):
        save({10**5000: print}, tmp_path / "b.lmgc")


def test_half_surrogate_pairs(tmp_path: Path):
    content = {"\ud83d\ude00": "\ud83d\ude00", "😀": torch.ones(1)}
    assert equal(there_and_back(content, tmp_path), content)


def test_a_tensor_alone(tmp_path: Path):
    assert identical(there_and_back(gradient(4), tmp_path), gradient(4))
    assert list(load_file(tmp_path / "a.lmgc")) == ["tensor"]


def test_names_are_made_different(tmp_path: Path):
    content = {"a.b": torch.ones(1), "a": {"b": torch.ones(2)}, "a.b~2": torch.ones(3)}
    content |= {1: torch.ones(4), "1": torch.ones(5)}
    assert equal(there_and_back(content, tmp_path), content)
    assert list(load_file(tmp_path / "a.lmgc")) == ["a.b", "a.b~2", "a.b~2~2", "1", "1~2"]


def test_tied_tensors(tmp_path: Path):
    weight = gradient(300, 200)
    twice = torch.arange(5)
    content = {
        "wte": weight,
        "lm_head": weight.detach(),
        "transposed": weight.t(),
        "same": [twice, twice],
    }
    back = there_and_back(content, tmp_path)
    assert all(torch.equal(back[name], content[name]) for name in ("wte", "lm_head", "transposed"))
    assert back["same"][0] is back["same"][1]
    back["wte"].zero_()
    assert not back["lm_head"].any()
    assert not back["transposed"].any()
    assert (tmp_path / "a.lmgc").stat().st_size < weight.nbytes


def test_parameters(tmp_path: Path):
    module = torch.nn.Linear(3, 3)
    content = dict(module.named_parameters())
    content["frozen"] = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    content["shared"] = module.weight
    content["leaf"] = torch.ones(2, requires_grad=True)
    back = there_and_back(content, tmp_path)
    assert equal(back, content)
    assert back["shared"] is back["weight"]
    module.load_state_dict({name: back[name] for name in ("weight", "bias")})


def test_what_other_functions_wrote(tmp_path: Path):
    tensors = {"b": gradient(4), "a": gradient(5)}
    save_file(tensors, tmp_path / "a.lmgc")
    assert equal(load(tmp_path / "a.lmgc"), tensors)
    for content in (tensors, list(tensors.values()), tensors["a"], [], {}):
        (tmp_path / "b.lmgc").write_bytes(to_bytes(lmgc_torch.compress(content)))
        assert equal(load(tmp_path / "b.lmgc"), content)


# ---- what is refused -----------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


class _Number(int):
    pass


class _Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (object(), "object is of type builtins.object"),
        ({"a": [1, {"b": range(3)}]}, r"object\['a'\]\[1\]\['b'\] is of type builtins.range"),
        ({"a": _Number(3)}, r"object\['a'\] is of type test_archive_objects._Number"),
        ({_Number(3): 1}, r"object\[3\] is of type test_archive_objects._Number"),
        ((Point(1, 2),), r"object\[0\] is of type .*Point"),
        (defaultdict(list), "collections.defaultdict"),
        ({"f": print}, r"object\['f'\] is of type builtins.builtin_function_or_method"),
        ({"m": torch.nn.Linear(1, 1)}, "torch.nn.modules.linear.Linear"),
        ([torch.eye(2).to_sparse()], r"object\[0\] is a sparse_coo tensor"),
        ([torch.empty(1, device="meta")], r"object\[0\] is a meta tensor"),
        ([torch.ones(2).as_subclass(_Subclass)], r"object\[0\] is a tensor of type .*_Subclass"),
        ({torch.ones(1): 1}, "object has a tensor as a key"),
        ({"a": {torch.ones(1)}}, r"object\['a'\] has a tensor as a key"),
    ],
)
def test_what_objects_may_not_hold(tmp_path: Path, content: object, says: str):
    with pytest.raises(TypeError, match=says):
        save(content, tmp_path / "a.lmgc")
    assert list(tmp_path.iterdir()) == []


def test_objects_that_hold_themselves(tmp_path: Path):
    content: dict[str, Any] = {"a": []}
    content["a"].append(content)
    with pytest.raises(TypeError, match=r"object\['a'\]\[0\] holds itself"):
        save(content, tmp_path / "a.lmgc")
    twice = [1]
    assert there_and_back([twice, twice], tmp_path) == [[1], [1]]


def test_deep_objects(tmp_path: Path):
    deep: Any = 1
    for _ in range(objects.MOST_DEPTH):
        deep = OrderedDict(a=deep)
    assert equal(there_and_back(deep, tmp_path), deep)
    with pytest.raises(TypeError, match="nested more than 64 levels deep"):
        save([deep], tmp_path / "b.lmgc")


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"unknown": 1},
        {"dict": 1},
        {"dict": [1]},
        {"dict": [[1]]},
        {"dict": [[1, 2, 3]]},
        {"dict": [[1, 2], [1, 3]]},
        {"dict": [[[1], 2]]},
        {"set": [[1]]},
        {"tuple": 3},
        {"size": ["a"]},
        {"int": 1},
        {"int": "xyz"},
        {"float": "00"},
        {"float": 1.5},
        {"complex": "00"},
        {"str": "ff"},
        {"str": "x"},
        {"bytes": "0"},
        {"bytearray": None},
        {"dtype": "Tensor"},
        {"dtype": "float7"},
        {"dtype": []},
        {"dtype": 1},
        {"device": "nowhere"},
        {"device": 1.5},
        {"tensor": 1},
        {"tensor": -1},
        {"tensor": True},
        {"tensor": "0"},
        {"counter": [["a"]]},
        {"ordered_dict": [], "attributes": [1]},
        {"ordered_dict": [], "attributes": {"dict": [[1, 2]]}},
    ],
)
def test_trees_that_are_wrong(tree: Any):
    for wrong in (tree, [tree], {"dict": [["a", tree]]}):
        with pytest.raises(CorruptArchiveError, match="the archive's object"):
            objects.decode(wrong, [torch.ones(1)])


def test_trees_of_tensors_that_take_no_gradient():
    with pytest.raises(CorruptArchiveError):
        objects.decode({"tensor": 0, "requires_grad": True}, [torch.tensor([1])])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 70) | st.text(max_size=3) | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*objects._MAKERS, "attributes"]), inner, max_size=2)
        ),
        max_leaves=10,
    )
)
def test_any_tree_gives_an_object_or_a_named_error(tree: Any):
    with contextlib.suppress(CorruptArchiveError):
        objects.decode(tree, [torch.ones(2), torch.ones(3)])


def test_every_byte_flipped(tmp_path: Path):
    content = {"w": torch.arange(3), "epoch": 3, "lr": [0.1, math.nan]}
    save(content, tmp_path / "a.lmgc", method="raw")
    data = (tmp_path / "a.lmgc").read_bytes()
    assert len(data) < 400
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        for wrong in (damaged, data[:place]):
            (tmp_path / "b.lmgc").write_bytes(wrong)
            with pytest.raises(CorruptFrameError):
                load(tmp_path / "b.lmgc")
