"""Wrong arguments of `compress` and `decompress`: the message says what is wrong with which."""

from __future__ import annotations

from collections.abc import Callable

import helpers
import pytest
import torch

from lmgc_torch import CorruptFrameError, compress, decompress, info

pytestmark = pytest.mark.usefixtures("one_thread")


ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (3, "int"),
        (None, "NoneType"),
        ("text", "str"),
        (b"text", "bytes"),
        (iter([ONE]), "iterator"),
        ({ONE}, "set"),
        ([ONE, 3], "tensor 1 is of type int"),
        ([ONE, None], "tensor 1 is of type NoneType"),
        ([[ONE]], "tensor 0 is of type list"),
        ({"a": ONE, "b": [1]}, "tensor 'b' is of type list"),
        ({"a": {"b": ONE}}, "tensor 'a' is of type dict"),
        ({1: ONE}, "names of tensors must be str; 1 is of type int"),
        ({("a",): ONE}, "tuple"),
    ],
)
def test_what_is_no_tensor(tensors: object, says: str):
    with pytest.raises(TypeError, match=says):
        compress(tensors)


def quantized() -> torch.Tensor:
    with helpers.warnings.catch_warnings():
        helpers.warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


UNSUPPORTED: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "sparse_coo"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), "sparse_csr"),
    "quantized": (quantized, "quantized"),
    "meta": (lambda: torch.empty(3, device="meta"), "meta"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
        "nested",
    ),
    "many dimensions": (lambda: torch.ones([1] * 65), "dimensions"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_unsupported_tensors(name: str):
    make, says = UNSUPPORTED[name]
    with pytest.raises(ValueError, match=says):
        compress({"good": torch.ones(3), "bad": make()})


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"method": "zip"},
            ValueError,
            "'zip'; it must be one of 'auto', 'raw', .*'lowrank', 'lm', 'lmgc'",
        ),
        ({"method": None}, ValueError, "'lmgc'"),
        ({"separator": "tab"}, ValueError, "'semicolon'"),
        ({"byte_order": "middle"}, ValueError, "'little'"),
        ({"bytes_per_group": 5}, ValueError, "bytes_per_group is 5"),
        ({"bytes_per_group": -1}, ValueError, "bytes_per_group"),
        ({"lane_elements": -1}, ValueError, "lane_elements"),
        ({"lane_elements": 2**40}, ValueError, "lane_elements"),
        ({"effort": 0}, ValueError, "effort is 0: it goes from 1 to 9"),
        ({"effort": 10}, ValueError, "effort"),
        ({"memory_limit": 0}, ValueError, "memory_limit"),
        ({"memory_limit": -(2**40)}, ValueError, "memory_limit"),
        ({"prior": 3}, TypeError, "prior is of type int"),
        ({"prior": torch.ones(1)}, TypeError, "prior is of type Tensor"),
    ],
)
def test_options(options: dict, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        compress(ONE, **options)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (3, TypeError, "int"),
        ("text", TypeError, "str"),
        ([1, 2], TypeError, "list"),
        (None, TypeError, "NoneType"),
        (torch.ones(4), TypeError, "torch.float32"),
        (torch.zeros(2, 2, dtype=torch.uint8), ValueError, "2"),
        (torch.tensor(1, dtype=torch.uint8), ValueError, "0"),
        (memoryview(b"abcd").cast("i"), TypeError, "single bytes"),
        (memoryview(b"abcd").cast("B", (2, 2)), ValueError, "2"),
        (torch.ones(3, dtype=torch.uint8).to_sparse(), ValueError, "1-D uint8"),
        (torch.zeros(3, dtype=torch.uint8, device="meta"), ValueError, "meta"),
        (b"", CorruptFrameError, "too early"),
    ],
)
def test_what_is_no_frame(data: object, error: type[Exception], says: str):
    for function in (decompress, info):
        with pytest.raises(error, match=says):
            function(data)


def test_errors_have_no_prefix_and_no_chain():
    with pytest.raises(CorruptFrameError) as caught:
        decompress(b"nothing")
    assert not str(caught.value).startswith("CorruptFrameError")
    assert caught.value.__suppress_context__
