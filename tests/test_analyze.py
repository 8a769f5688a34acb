"""The report of what compresses: entropies, categories, spectra, sizes, and how it is shown."""

import json
import math
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
from helpers import DTYPES, FLOATS, from_bytes, gradient
from hypothesis import given
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import analyze, compress, info
from lmgc_torch.analyze import CATEGORIES, Report, TensorReport, fields, sizes, spectrum
from lmgc_torch.analyze.table import as_lines, in_words

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def noise(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Bits without a pattern, infinities and NaN among them."""
    generator = torch.Generator().manual_seed(1)
    raw = torch.randint(0, 256, (count * dtype.itemsize,), generator=generator)
    return raw.to(torch.uint8).view(dtype)


def only(tensor: torch.Tensor, **options) -> TensorReport:
    (report,) = analyze(tensor, **options).tensors
    return report


# ---- fields --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [d for d in DTYPES if not d.is_complex], ids=str)
def test_fields_are_all_bits_of_an_element(dtype: torch.dtype):
    assert sum(bits for _, bits in fields.layout_of(dtype)) == 8 * dtype.itemsize


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fields_are_those_that_floats_have(dtype: torch.dtype):
    names = [name for name, _ in fields.layout_of(dtype)]
    assert names[:2] == ["sign", "exponent"]
    assert set(names[2:]) == {"mantissa"}
    mantissa = sum(bits for name, bits in fields.layout_of(dtype) if name == "mantissa")
    assert 2.0**-mantissa == torch.finfo(dtype).eps


def test_entropies_of_a_tensor_that_can_be_counted():
    # Signs half and half, exponents of 1, 2, 4, 8 alike, mantissas 0.
    values = torch.tensor([1.0, 2.0, 4.0, 8.0]).repeat(8)
    values[16:] *= -1
    report = only(values)
    assert report.entropy("sign") == 1.0
    assert report.entropy("exponent") == 2.0
    assert report.entropy("mantissa") == 0.0
    assert report.entropy("byte") is None
    sign, exponent, *mantissa = report.fields
    assert sign.bit_entropies == (1.0,)
    # 127, 128, 129, 130: the highest bit of 8 is 0 once, the lowest two are each 0 and 1 half.
    one_of_four = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert exponent.bit_entropies == pytest.approx((one_of_four,) * 6 + (1.0, 1.0))
    assert [part.bits for part in mantissa] == [7, 8, 8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_noise_has_all_the_entropy(dtype: torch.dtype):
    for part in only(noise(200_000, dtype)).fields:
        assert part.entropy == pytest.approx(part.bits, abs=0.02)
        assert part.bit_entropies == pytest.approx((1.0,) * part.bits, abs=1e-3)


def test_zeros_of_both_signs_are_counted():
    assert only(torch.tensor([0.0, -0.0, 1.0, 2.0])).zeros == 0.5
    assert only(torch.tensor([0, 3, -5, 0])).zeros == 0.5
    assert only(torch.tensor([0j, 1j])).zeros == 0.75  # of real and imaginary parts


# ---- categories ----------------------------------------------------------------------------------


def truncated(values: torch.Tensor, bits: int) -> torch.Tensor:
    return (values.view(torch.int32) >> bits << bits).view(torch.float32)


@pytest.mark.parametrize(
    ("tensor", "category", "precision"),
    [
        (normal(3000), "exponent", None),
        (normal(3000).bfloat16(), "exponent", None),
        (normal(3000).half(), "exponent", None),
        (normal(3000).bfloat16().float(), "converted", torch.bfloat16),
        (normal(3000).half().float(), "converted", torch.float16),
        (normal(3000).double(), "converted", torch.float32),
        (normal(3000).bfloat16().double(), "converted", torch.bfloat16),
        (truncated(normal(3000), 12), "clean", None),
        (truncated(normal(3000), 1), "exponent", None),
        (noise(3000, torch.float32), "incompressible", None),
        (torch.zeros(3000), "zeros", None),
        (-torch.zeros(3000), "zeros", None),
        (normal(50), "small", None),
        (torch.empty(0, 4), "small", None),
        (torch.tensor(1.5), "small", None),
        (torch.arange(3000), "other", None),
        (torch.zeros(3000, dtype=torch.bool), "other", None),
        (torch.complex(normal(3000), normal(3000, seed=1)), "exponent", None),
    ],
    ids=lambda value: str(value) if not isinstance(value, torch.Tensor) else str(value.dtype),
)
def test_category(tensor: torch.Tensor, category: str, precision: torch.dtype | None):
    report = only(tensor)
    assert (report.category, report.precision) == (category, precision)


def test_zeros_say_nothing_about_the_mantissa():
    tensor = normal(4000)
    tensor[::2] = 0
    assert only(tensor).category == "exponent"
    tensor[1::2] = tensor[1::2].bfloat16().float()
    assert only(tensor).precision == torch.bfloat16


def test_one_value_of_full_precision_is_no_conversion():
    tensor = normal(4000).bfloat16().float()
    tensor[7] = 0.1
    assert only(tensor).category == "clean"


def test_values_that_are_not_finite_are_left_out():
    tensor = normal(4000).bfloat16().float()
    tensor[:3] = torch.tensor([math.inf, -math.inf, math.nan])
    assert only(tensor).category == "converted"
    assert only(torch.full((4000,), math.nan)).category == "small"


# ---- spectra -------------------------------------------------------------------------------------


def test_effective_rank_of_matrices_whose_rank_is_known():
    q, _ = torch.linalg.qr(normal(40, 40).double())
    flat = q[:, :5] @ q[:5]  # five singular values, all the same
    found = spectrum.spectrum_of(flat.float())
    assert found is not None
    assert found.effective_rank == pytest.approx(5, abs=1e-3)
    assert found.values[:5] == pytest.approx((1.0,) * 5, abs=1e-4)
    assert max(found.values[5:]) < 1e-5
    identity = spectrum.spectrum_of(torch.eye(30).bfloat16())
    assert identity is not None
    assert identity.effective_rank == pytest.approx(30)
    assert identity.full_rank == 30


def test_spectrum_is_of_dimension_0_by_the_rest():
    found = spectrum.spectrum_of(normal(6, 5, 3, 3))
    assert found is not None
    assert (found.rows, found.columns) == (6, 45)


@pytest.mark.parametrize(
    "tensor",
    [normal(40), normal(1, 40), torch.empty(0, 3), torch.arange(9).view(3, 3), torch.tensor(1.0)],
    ids=lambda tensor: str(tuple(tensor.shape)),
)
def test_what_is_no_matrix_has_no_spectrum(tensor: torch.Tensor):
    assert spectrum.spectrum_of(tensor) is None


def test_spectrum_of_odd_values():
    assert spectrum.spectrum_of(torch.full((3, 3), math.nan)) is None
    zeros = spectrum.spectrum_of(torch.zeros(3, 3))
    assert zeros is not None
    assert (zeros.effective_rank, zeros.values) == (0.0, ())
    huge = spectrum.spectrum_of(torch.full((3, 3), 1e308, dtype=torch.float64))
    assert huge is not None
    assert huge.effective_rank == pytest.approx(1)


def test_large_spectra_are_thinned():
    found = spectrum.spectrum_of(normal(300, 2000))
    assert found is not None
    assert (found.rows, found.columns) == (300, spectrum.LARGEST)
    assert len(found.values) == len(found.indices) <= spectrum.POINTS
    assert (found.indices[0], found.indices[-1]) == (1, 300)
    assert list(found.values) == sorted(found.values, reverse=True)


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    low = normal(96, 5) @ normal(5, 80, seed=1)
    return {
        "low": low,
        "converted": normal(64, 50).bfloat16().float(),
        "gradient": gradient(64, 48),
        "noise": noise(4000, torch.float32),
        "ids": torch.arange(300),
        "empty": torch.empty(0, 3),
    }


@pytest.fixture(scope="module")
def report(tensors: dict[str, torch.Tensor]) -> Report:
    return analyze(tensors)


def test_expected_is_the_size_of_the_frame(tensors: dict[str, torch.Tensor], report: Report):
    frame = compress(tensors)
    # A method that is not the best for a tensor may tell more of it in the header; small tensors of
    # one type are coded as one.
    assert abs(report.expected_bytes - frame.numel()) <= 100 * len(tensors)
    assert report.ratio == pytest.approx(info(frame).ratio, abs=0.1)
    assert sum(report.sections.values()) == report.expected_bytes
    for ours, theirs in zip(report.tensors, info(frame).tensors, strict=True):
        if not theirs.joined:
            assert (ours.best, ours.expected_bytes) == (theirs.method, theirs.section_bytes)
    unnamed = analyze(list(tensors.values())).expected_bytes
    assert abs(unnamed - compress(list(tensors.values())).numel()) <= 100 * len(tensors)


def test_sizes_are_those_of_each_method(tensors: dict[str, torch.Tensor], report: Report):
    for method in ("planes", "scale", "lowrank"):
        about = info(compress(tensors, method=method))
        for ours, theirs in zip(report.tensors, about.tensors, strict=True):
            if theirs.method == method and not theirs.joined:
                assert ours.sizes[method] == theirs.section_bytes
    for tensor in report.tensors:
        assert tensor.sizes["raw"] == tensor.raw_bytes
        assert tensor.expected_bytes == min(tensor.sizes.values())
    assert {t.name: t.best for t in report.tensors}["low"] == "lowrank"
    assert {t.name: t.best for t in report.tensors}["noise"] == "raw"


def test_other_methods_on_demand(tensors: dict[str, torch.Tensor]):
    some = {"low": tensors["low"]}
    learned = analyze(some, methods=["lowrank", "lm"])
    assert learned.expected_bytes == compress(some, method="lm").numel()
    (with_model,) = learned.tensors
    (with_tables,) = analyze(some, methods=["lowrank"]).tensors
    assert with_model.best == "lm"
    assert with_model.expected_bytes < with_tables.expected_bytes == with_model.sizes["lowrank"]


def test_large_tensors_are_sampled():
    tensor = gradient(512, 64)
    report = only(tensor, sample=8192)
    assert (report.elements, report.sampled) == (512 * 64, 8192)
    assert report.raw_bytes == tensor.nbytes
    whole = only(tensor)
    assert (whole.sampled, whole.elements) == (512 * 64, 512 * 64)
    assert report.expected_bytes == pytest.approx(whole.expected_bytes, rel=0.05)
    assert "~" in str(analyze(tensor, sample=8192))
    assert "~" not in str(analyze(tensor))
    assert only(tensor, sample=None).expected_bytes == whole.expected_bytes


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    most=st.integers(1, 2000),
)
def test_samples_are_rows_of_the_tensor(shape: list[int], most: int):
    tensor = torch.arange(math.prod(shape)).view(shape)
    taken = sizes.sample(tensor, most)
    if tensor.numel() <= most:
        assert taken is tensor
        return
    assert 0 < taken.numel() <= most
    assert taken.unique().numel() == taken.numel()  # nothing twice
    assert taken.dim() == min(2, tensor.dim())
    assert bool((taken.flatten().diff() > 0).all())


def test_tensors_in_groups(tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch):
    whole = analyze(tensors)
    monkeypatch.setattr(sizes, "GROUP_BYTES", 1000)
    assert [t.sizes for t in analyze(tensors).tensors] == [t.sizes for t in whole.tensors]


@given(st.sampled_from(DTYPES), st.binary(max_size=400), st.data())
def test_anything_can_be_analyzed(dtype: torch.dtype, data: bytes, draw: st.DataObject):
    count = len(data) // dtype.itemsize
    tensor = from_bytes(data[: count * dtype.itemsize], dtype, [count])
    if count and draw.draw(st.booleans()):
        tensor = tensor.view(1, count)
    report = analyze([tensor])
    assert report.tensors[0].category in CATEGORIES
    assert sum(report.sections.values()) == report.expected_bytes
    assert report.raw_bytes == tensor.nbytes
    json.dumps(report.to_json(), allow_nan=False)
    report.to_html("anything")


def test_inputs_stay_as_they_are(tensors: dict[str, torch.Tensor]):
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    analyze({**tensors, "turned": tensors["low"].t()})
    for name, tensor in tensors.items():
        assert torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"sample is 0"):
        analyze([], sample=0)
    with pytest.raises(ValueError, match=r"'best'"):
        analyze([torch.ones(3)], methods=["best"])
    with pytest.raises(TypeError, match=r"tensor 1 is of type int"):
        analyze([torch.ones(3), 5])
    with pytest.raises(ValueError, match=r"sparse"):
        analyze([torch.eye(3).to_sparse()])


def test_nothing_at_all():
    report = analyze([])
    assert (report.raw_bytes, report.expected_bytes, report.category) == (0, 0, "other")
    assert "all" in str(report)
    report.to_html("nothing")


# ---- how it is shown -----------------------------------------------------------------------------


def test_table_shows_every_tensor(report: Report):
    lines = str(report).splitlines()
    assert lines[0].split()[:5] == ["tensor", "type", "shape", "why", "best"]
    assert [line.split()[0] for line in lines[1:8]] == [*(t.name for t in report.tensors), "all"]
    assert "from lower precision: bfloat16" in lines[2]
    assert any(line.startswith("why: ") for line in lines)


def test_downloads_say_what_is_saved(report: Report):
    saved = report.saved_bytes(1000)
    assert saved == 1000 * (report.raw_bytes - report.expected_bytes)
    assert f"1,000 downloads a month: {in_words(saved)} saved a month" in as_lines(report, 1000)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (1_234_000_000, "1.23 GB"),
        (-5_000_000, "-5 MB"),
        (10**18, "1 EB"),
        (1234 * 10**18, "1.23e+03 EB"),
    ],
)
def test_sizes_in_words(size: int, words: str):
    assert in_words(size) == words


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page_is_whole_and_fetches_nothing(report: Report):
    text = report.to_html("model.pt", downloads=1000)
    page = Page(text)
    assert {"h1", "table", "svg", "style"} <= set(page.tags)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "http" not in text
    assert "url(" not in text
    assert "model.pt" in page.words
    assert {tensor.name for tensor in report.tensors} <= set(page.words)
    assert "saved by 1,000 downloads a month" in page.words


def test_page_draws_what_the_report_says(report: Report):
    text = report.to_html("model.pt")
    drawings = [
        ElementTree.fromstring(part.partition("</svg>")[0] + "</svg>")
        for part in ("<svg " + part for part in text.split("<svg ")[1:])
    ]
    named = {drawing.get("aria-label", ""): drawing for drawing in drawings}
    spent = named["Where the bits go"]
    shares = {
        kind: sum(float(r.get("width", "0")) for r in spent.iter("rect") if r.get("class") == kind)
        for kind in ("part-saved", "part-raw")
    }
    assert shares["part-raw"] > 0
    assert shares["part-saved"] > 0
    cells = [
        float(rect.get("fill-opacity", "nan"))
        for rect in named["Entropy of every bit of float32 tensors"].iter("rect")
    ]
    told = [t for t in report.tensors if t.dtype == torch.float32 and t.elements]
    assert cells == pytest.approx(
        [bit for t in told for part in t.fields for bit in part.bit_entropies], abs=1e-3
    )
    curves = named["Singular values of the largest matrices"].findall("polyline")
    assert len(curves) == sum(t.spectrum is not None for t in report.tensors)


def test_names_are_no_markup():
    evil = "<script>alert('&')</script>\x1b[31m[bold]"
    report = analyze({evil: gradient(40, 30)})
    page = Page(report.to_html(evil))
    assert "script" not in page.tags
    assert "\x1b" not in str(report)
    assert "[bold]" in str(report)


def test_function_of_the_package():
    assert lmgc_torch.analyze is analyze
    assert callable(analyze)
