"""The `ieee` serializer: tensors as hexadecimal text and token ids, and back."""

import pytest
import torch
from helpers import DTYPES, FLOATS, bits, from_bytes, identical, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from lmgc_torch import _library
from lmgc_torch.serialize import (
    SEPARATOR_TOKEN,
    deserialize,
    detokenize,
    serialize,
    tokenize,
)

OPS = _library.ops()

SEPARATORS = {
    "none": "",
    "space": " ",
    "comma": ",",
    "comma_space": ", ",
    "semicolon": ";",
    "0x": "0x",
    "iso-8859-1": "",
}
GROUPS = [None, 1, 2, 3, 4, 8]

every_option = pytest.mark.parametrize(
    ("separator", "bytes_per_group", "byte_order"),
    [(s, g, o) for s in SEPARATORS for g in GROUPS for o in ("big", "little")],
)


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Every bit is random: NaN payloads, subnormals and infinities come up."""
    random = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=random)
    return from_bytes(bytes(raw.tolist()), dtype, shape)


def naive(tensor, separator="none", bytes_per_group=None, byte_order="big"):
    """The text and the tokens, from docs/format.md."""
    stream = to_bytes(bits(tensor))
    if tensor.dtype in FLOATS and byte_order == "big":
        size = tensor.dtype.itemsize
        stream = b"".join(stream[i : i + size][::-1] for i in range(0, len(stream), size))
    if separator == "iso-8859-1":
        return stream.decode("latin-1"), list(stream)
    step = bytes_per_group or max(len(stream), 1)
    groups = [stream[i : i + step].hex() for i in range(0, len(stream), step)]
    mark = SEPARATORS[separator]
    text = "".join(mark + g for g in groups) if separator == "0x" else mark.join(groups)
    tokens: list[int] = []
    for index, group in enumerate(groups):
        if mark and (index > 0 or separator == "0x"):
            tokens.append(SEPARATOR_TOKEN)
        tokens += [int(digit, 16) for digit in group]
    return text, tokens


# ---- what the text looks like --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "3f800000c0000000"),
        ({"byte_order": "little"}, "0000803f000000c0"),
        ({"separator": "space", "bytes_per_group": 4}, "3f800000 c0000000"),
        ({"separator": "comma", "bytes_per_group": 2}, "3f80,0000,c000,0000"),
        ({"separator": "comma_space", "bytes_per_group": 3}, "3f8000, 00c000, 0000"),
        ({"separator": "semicolon", "bytes_per_group": 1}, "3f;80;00;00;c0;00;00;00"),
        ({"separator": "semicolon", "bytes_per_group": 8}, "3f800000c0000000"),
        ({"separator": "0x", "bytes_per_group": 4}, "0x3f8000000xc0000000"),
        ({"separator": "0x"}, "0x3f800000c0000000"),
        ({"separator": "space"}, "3f800000c0000000"),
        ({"separator": "iso-8859-1"}, "\x3f\x80\0\0\xc0\0\0\0"),
        ({"separator": "iso-8859-1", "byte_order": "little"}, "\0\0\x80\x3f\0\0\0\xc0"),
    ],
)
def test_spelling_of_two_floats(options, text):
    tensor = torch.tensor([1.0, -2.0])
    assert serialize(tensor, **options) == text
    assert identical(deserialize(text, torch.float32, [2], **options), tensor)


def test_spelling_of_other_types():
    assert serialize(torch.tensor(1.0, dtype=torch.bfloat16)) == "3f80"
    assert serialize(torch.tensor(1.0, dtype=torch.float16)) == "3c00"
    assert serialize(torch.tensor(1.0, dtype=torch.float64)) == "3ff0000000000000"
    # Not one of the four floats: the bytes in memory, whatever the byte order.
    for order in ("big", "little"):
        assert serialize(torch.tensor(258, dtype=torch.int32), byte_order=order) == "02010000"
        assert serialize(torch.tensor(1 + 0j), byte_order=order) == "0000803f00000000"


def test_tokens_of_two_floats():
    tensor = torch.tensor([1.0, -2.0])
    tokens = tokenize(tensor, separator="comma_space", bytes_per_group=4)
    assert tokens.dtype == torch.int16
    assert tokens.tolist() == [3, 15, 8, 0, 0, 0, 0, 0, 256, 12, 0, 0, 0, 0, 0, 0, 0]


# ---- round trips ---------------------------------------------------------------------------------


@every_option
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32])
def test_agrees_with_the_naive_serializer(dtype, separator, bytes_per_group, byte_order):
    options = {
        "separator": separator,
        "bytes_per_group": bytes_per_group,
        "byte_order": byte_order,
    }
    for elements in (0, 1, 2, 3, 4, 5, 7, 8, 9, 31):
        tensor = random_tensor(dtype, (elements,), seed=elements)
        text, tokens = naive(tensor, **options)
        assert serialize(tensor, **options) == text
        assert identical(deserialize(text, dtype, [elements], **options), tensor)
        assert tokenize(tensor, **options).tolist() == tokens
        for wide in (torch.int16, torch.int32, torch.int64):
            ids = torch.tensor(tokens, dtype=wide)
            assert identical(detokenize(ids, dtype, [elements], **options), tensor)


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 7), max_size=4),
    separator=st.sampled_from(list(SEPARATORS)),
    bytes_per_group=st.sampled_from(GROUPS),
    byte_order=st.sampled_from(["big", "little"]),
    data=st.data(),
)
def test_round_trip(dtype, shape, separator, bytes_per_group, byte_order, data):
    size = torch.Size(shape).numel() * dtype.itemsize
    tensor = from_bytes(data.draw(st.binary(min_size=size, max_size=size)), dtype, shape)
    options = {
        "separator": separator,
        "bytes_per_group": bytes_per_group,
        "byte_order": byte_order,
    }
    text = serialize(tensor, **options)
    assert text == naive(tensor, **options)[0]
    assert identical(deserialize(text, dtype, shape, **options), tensor)
    assert identical(detokenize(tokenize(tensor, **options), dtype, shape, **options), tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    tensor = random_tensor(dtype, (3, 5))
    options = {"separator": "comma", "bytes_per_group": 3}
    assert serialize(tensor, **options) == naive(tensor, **options)[0]
    assert identical(deserialize(serialize(tensor, **options), dtype, [3, 5], **options), tensor)


@pytest.mark.parametrize("separator", ["none", "space", "iso-8859-1"])
def test_large_enough_for_threads(separator):
    tensor = random_tensor(torch.float32, (300, 1001))
    options = {"separator": separator, "bytes_per_group": 4}
    text = OPS.serialize(tensor, **options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = OPS.serialize(tensor, **options)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(text, alone)
    assert bytes(text.tolist()).decode("latin-1") == naive(tensor, **options)[0]
    assert identical(OPS.deserialize(text, torch.float32, [300, 1001], **options), tensor)


# ---- kinds of tensors ----------------------------------------------------------------------------


def test_views_are_written_in_c_order_and_left_alone():
    base = random_tensor(torch.float32, (4, 6, 8, 2))
    views = [
        base.transpose(0, 2),
        base[1:, ::2, 3],
        base[0, 0, 0].expand(5, 2),
        base.to(memory_format=torch.channels_last),
        base.reshape(-1)[1:],  # a data pointer that is not aligned to 8 bytes
        base[:0],
        base[0, 0, 0, 0],
    ]
    for view in views:
        before = view.clone()
        text = serialize(view, separator="space", bytes_per_group=4)
        assert text == serialize(view.clone().contiguous(), separator="space", bytes_per_group=4)
        assert identical(
            deserialize(text, torch.float32, view.shape, separator="space", bytes_per_group=4), view
        )
        assert identical(view, before)


def test_bytes_at_an_odd_address():
    tensor = random_tensor(torch.uint8, (100,))[3:]
    assert serialize(tensor) == naive(tensor)[0]
    text = torch.tensor([0, *serialize(tensor).encode()], dtype=torch.uint8)[1:]
    assert identical(OPS.deserialize(text, torch.uint8, [97]), tensor)


def test_non_contiguous_text_and_tokens():
    tensor = torch.tensor([1.0, -2.0])
    text = OPS.serialize(tensor).repeat_interleave(2)[::2]
    assert not text.is_contiguous()
    assert identical(OPS.deserialize(text, torch.float32, [2]), tensor)
    tokens = OPS.tokenize(tensor).repeat_interleave(3)[::3]
    assert identical(OPS.detokenize(tokens, torch.float32, [2]), tensor)


def test_lazy_conjugation_and_negation_are_done():
    real, imaginary = torch.tensor([1.0, -3.0]), torch.tensor([2.0, -0.0])
    lazy = torch.complex(real, imaginary).conj()
    assert lazy.is_conj()
    assert serialize(lazy) == serialize(torch.complex(real, -imaginary))
    assert lazy.imag.is_neg()
    assert serialize(lazy.imag) == serialize(torch.tensor([-2.0, 0.0])) == "c000000000000000"


def test_tensors_that_need_gradients():
    tensor = torch.tensor([1.0, -2.0], requires_grad=True)
    assert serialize(tensor * 1) == serialize(tensor) == "3f800000c0000000"
    assert not OPS.tokenize(tensor).requires_grad
    assert serialize(torch.nn.Parameter(tensor)) == "3f800000c0000000"


# ---- what is refused -----------------------------------------------------------------------------


def test_wrong_options():
    tensor = torch.zeros(2)
    names = "'none', 'space', 'comma', 'comma_space', 'semicolon', '0x', 'iso-8859-1'"
    with pytest.raises(ValueError, match=f"separator is 'tab'; it must be one of {names}"):
        serialize(tensor, separator="tab")
    for size in (-1, 5, 6, 7, 9, 256, 2**32):
        with pytest.raises(ValueError, match=f"bytes_per_group is {size}; it must be one of 1, 2"):
            tokenize(tensor, bytes_per_group=size)
    with pytest.raises(ValueError, match="byte_order is 'middle'; it must be one of 'big', 'litt"):
        deserialize("", torch.float32, [0], byte_order="middle")
    with pytest.raises(ValueError, match="separator is ''"):
        detokenize(torch.zeros(0, dtype=torch.int16), torch.float32, [0], separator="")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_tensors_without_plain_bytes():
    with pytest.raises(ValueError, match=r"the tensor has layout Sparse: .* dense"):
        serialize(torch.eye(2).to_sparse())
    with pytest.raises(ValueError, match="layout SparseCsr"):
        serialize(torch.eye(2).to_sparse_csr())
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)
    with pytest.raises(ValueError, match="lmgc has no element type for QUInt8"):
        serialize(quantized)
    with pytest.raises(ValueError, match="lmgc has no element type for QInt8"):
        deserialize("00", torch.qint8, [1])


def test_text_of_the_wrong_kind():
    text = torch.zeros(8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"text has 2 dimensions, not 1"):
        OPS.deserialize(text.view(2, 4), torch.float32, [1])
    with pytest.raises(ValueError, match=r"the text is of int32; it must be of uint8"):
        OPS.deserialize(text.int(), torch.float32, [1])
    with pytest.raises(
        ValueError, match=r"list is of float32; it must be of int16, int32 or int64"
    ):
        OPS.detokenize(text.float(), torch.float32, [1])
    with pytest.raises(ValueError, match="position 1: '\u20ac' is not a character"):
        deserialize("1\u20ac000000", torch.float32, [1])


@pytest.mark.parametrize("change", [-8, -1, 1, 8])
def test_wrong_length(change):
    text = serialize(torch.zeros(3))
    text = text + "0" * change if change > 0 else text[:change]
    message = (
        f"the text has {24 + change} characters, but a tensor of float32 with shape \\[3\\] is "
        "written with 24"
    )
    with pytest.raises(ValueError, match=message):
        deserialize(text, torch.float32, [3])


def test_impossible_shapes():
    for shape in ([2**40, 2**40], [2**62], [2**63 - 1, 2]):
        with pytest.raises(ValueError, match="too large to serialize"):
            deserialize("00", torch.float32, shape)
    with pytest.raises(ValueError, match="is written with 8796093022208"):
        deserialize("00", torch.float32, [2**40])  # nothing of that size is allocated
    with pytest.raises(ValueError, match="negative size"):
        deserialize("00", torch.float32, [-1, 0])
    assert deserialize("", torch.float32, [2**40, 2**20, 0]).numel() == 0


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("3f80000g", {}, r"position 7: 'g' \(0x67\) where a digit, 0-9 or a-f belongs"),
        ("3F80000g", {}, r"position 1: 'F' \(0x46\) where a digit"),
        ("3f80000\0", {}, r"position 7: 0x00 where a digit"),
        ("3f80000\xff", {}, r"position 7: 0xff where a digit"),
        ("3f8 000 00", {"separator": "space", "bytes_per_group": 2}, "has 10 characters, but .* 9"),
        (
            "3f8000 00",
            {"separator": "space", "bytes_per_group": 2},
            r"position 4: '0' \(0x30\) where the separator ' ' belongs",
        ),
        ("3f80;0000", {"separator": "comma", "bytes_per_group": 2}, r"position 4: ';' .* ',' bel"),
        ("3f80,_0000", {"separator": "comma_space", "bytes_per_group": 2}, r"position 5: '_' .* '"),
        ("0X3f800000", {"separator": "0x"}, r"position 1: 'X' \(0x58\) where the separator 'x'"),
    ],
)
def test_damaged_text(text, options, message):
    with pytest.raises(ValueError, match=message):
        deserialize(text, torch.float32, [1], **options)


def test_damaged_tokens():
    tokens = tokenize(torch.ones(2), separator="space", bytes_per_group=4).long()
    options = {"separator": "space", "bytes_per_group": 4}
    for place, token, message in [
        (3, 16, r"the token list is damaged at position 3: 16 where a digit, 0 to 15 belongs"),
        (8, 3, r"position 8: 3 where the separator 256 belongs"),
        (9, -1, r"position 9: -1 where a digit"),
        (5, 2**16, r"position 5: 65536 where a digit"),
        (5, 2**32, r"position 5: 4294967296 where a digit"),
    ]:
        damaged = tokens.clone()
        damaged[place] = token
        with pytest.raises(ValueError, match=message):
            detokenize(damaged, torch.float32, [2], **options)
    with pytest.raises(ValueError, match="position 0: 256 where a byte, 0 to 255 belongs"):
        detokenize(torch.tensor([256]), torch.uint8, [1], separator="iso-8859-1")


def test_the_first_damage_is_reported_with_many_threads():
    text = OPS.serialize(random_tensor(torch.float32, (100_000,)))
    text[torch.randint(1234, text.numel(), (1000,))] = ord("G")
    text[1234] = ord("z")
    for _ in range(5):
        with pytest.raises(ValueError, match="position 1234: 'z'"):
            OPS.deserialize(text, torch.float32, [100_000])


# ---- torch's own machinery -----------------------------------------------------------------------

SAMPLES = [
    {"separator": separator, "bytes_per_group": group}
    for separator, group in [("none", 0), ("comma_space", 3), ("0x", 4), ("0x", 0)]
]
SAMPLES.append({"separator": "iso-8859-1", "bytes_per_group": 1, "byte_order": "little"})


@pytest.mark.parametrize("options", SAMPLES, ids=str)
def test_opcheck(options):
    for shape in ((3, 5), (0, 2), ()):
        tensor = random_tensor(torch.bfloat16, shape)
        torch.library.opcheck(OPS.serialize.default, (tensor,), options)
        torch.library.opcheck(OPS.tokenize.default, (tensor,), options)
        text = OPS.serialize(tensor, **options)
        torch.library.opcheck(OPS.deserialize.default, (text, torch.bfloat16, shape), options)
        tokens = OPS.tokenize(tensor, **options)
        torch.library.opcheck(OPS.detokenize.default, (tokens, torch.bfloat16, shape), options)


@every_option
def test_meta_tensors_have_the_right_shape(separator, bytes_per_group, byte_order):
    options = {
        "separator": separator,
        "bytes_per_group": bytes_per_group or 0,
        "byte_order": byte_order,
    }
    for dtype in (torch.bfloat16, torch.float64, torch.complex128):
        for elements in (0, 1, 2, 3, 13):
            tensor = torch.zeros(elements, dtype=dtype)
            for op in (OPS.serialize, OPS.tokenize):
                real = op(tensor, **options)
                meta = op(tensor.to("meta"), **options)
                assert (meta.shape, meta.dtype) == (real.shape, real.dtype)


def test_meta_tensors_refuse_wrong_options():
    meta = torch.zeros(3, device="meta")
    with pytest.raises(ValueError, match="separator is 'tab'"):
        OPS.serialize(meta, separator="tab")
    with pytest.raises(ValueError, match="bytes_per_group is 5"):
        OPS.tokenize(meta, bytes_per_group=5)
    with pytest.raises(ValueError, match="byte_order is ''"):
        OPS.serialize(meta, byte_order="")


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_without_graph_breaks(dynamic):
    def there_and_back(tensor):
        text = torch.ops.lmgc.serialize(tensor * 2, separator="0x", bytes_per_group=3)
        tokens = torch.ops.lmgc.tokenize(tensor * 2, separator="space", bytes_per_group=4)
        back = torch.ops.lmgc.deserialize(
            text, tensor.dtype, tensor.shape, separator="0x", bytes_per_group=3
        )
        return text.int() + 1, tokens.int() + 1, back

    compiled = torch.compile(there_and_back, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in (3, 8):
        tensor = random_tensor(torch.float32, (size, 2)).nan_to_num(0, 1, 2)
        for actual, expected in zip(compiled(tensor), there_and_back(tensor), strict=True):
            assert torch.equal(actual, expected)


# ---- CUDA ----------------------------------------------------------------------------------------


@pytest.mark.cuda
@every_option
def test_cuda_writes_and_reads_the_same(separator, bytes_per_group, byte_order):
    options = {
        "separator": separator,
        "bytes_per_group": bytes_per_group or 0,
        "byte_order": byte_order,
    }
    for dtype in DTYPES:
        for elements in (0, 1, 5, 1003):
            tensor = random_tensor(dtype, (elements + 3,))[3:]
            there = random_tensor(dtype, (elements + 3,)).cuda()[3:]
            text = OPS.serialize(there, **options)
            assert text.is_cuda
            assert torch.equal(text.cpu(), OPS.serialize(tensor, **options))
            assert identical(OPS.deserialize(text, dtype, [elements], **options), there)
            tokens = OPS.tokenize(there, **options)
            assert torch.equal(tokens.cpu(), OPS.tokenize(tensor, **options))
            for wide in (torch.int16, torch.int32, torch.int64):
                back = OPS.detokenize(tokens.to(wide), dtype, [elements], **options)
                assert identical(back, there)


@pytest.mark.cuda
def test_cuda_finds_the_same_damage():
    options = {"separator": "comma", "bytes_per_group": 3}
    text = OPS.serialize(random_tensor(torch.float32, (100_000,)), **options)
    text[torch.randint(4321, text.numel(), (1000,))] = ord("G")
    text[4321] = ord("z")
    messages = []
    for given_text in (text, text.cuda()):
        with pytest.raises(ValueError, match="position 4321") as error:
            OPS.deserialize(given_text, torch.float32, [100_000], **options)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
