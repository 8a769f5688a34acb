"""What compresses in a model, and why: ``lmgc_torch.analyze(model.state_dict())``.

`report` has what comes out, `fields` the entropies of sign, exponent and mantissa, `category` the
rule of the categories, `spectrum` the singular values, `sizes` the sizes by compressing; `table`,
`page` and `plots` show it, `command` is ``lmgc analyze``.
"""

from collections.abc import Mapping, Sequence

import torch

from lmgc_torch import api, form
from lmgc_torch.analyze import category, fields, sizes, spectrum
from lmgc_torch.analyze.report import CATEGORIES, Category, Field, Report, Spectrum, TensorReport
from lmgc_torch.api import Method, PriorLike, Tensors

__all__ = ["CATEGORIES", "Category", "Field", "Report", "Spectrum", "TensorReport", "analyze"]

METHODS: tuple[Method, ...] = ("planes", "scale", "lowrank")
SAMPLE = 2**24


def analyze(
    tensors: Tensors,
    *,
    methods: Sequence[Method] = METHODS,
    prior: PriorLike | None = None,
    sample: int | None = SAMPLE,
) -> Report:
    """Tells what compresses in tensors, and why.

    Args:
        tensors: A tensor, a list of tensors, or a dict of tensors by name, as for `compress`: the
            `state_dict` of a model, gradients, the tensors of an optimiser.
        methods: Which methods to try. Those of `auto` by default; "lm" and "lmgc" take longer.
        prior: The language model of "lm" or "lmgc", as for `compress`.
        sample: Elements of a tensor that are looked at, at most: of larger tensors, runs of rows at
            equal distances. None looks at everything.

    Returns:
        The report. Its sizes come from compressing what was looked at, and all of that was
        decompressed and compared bit for bit. Entropies count what was looked at; so do zeros.

    Raises:
        TypeError: `tensors` or what is in it is something else.
        ValueError: A tensor is sparse, quantized or of a type that is not known, or an option is
            not legal.
        ImportError: The native library cannot be loaded; the message says why.

    Examples:
        >>> report = analyze({"weight": torch.ones(64, 64, dtype=torch.float16)})
        >>> report.tensors[0].best
        'planes'
    """
    values, _ = form.flatten(tensors)
    if sample is not None and sample < 1:
        raise ValueError(f"sample is {sample}: it should be at least 1, or None for everything")
    for method in methods:
        if method not in api.METHODS:
            legal = ", ".join(map(repr, api.METHODS))
            raise ValueError(f"a method is {method!r}; methods are {legal}")
    names = _names(tensors, len(values))
    samples = [value if sample is None else sizes.sample(value, sample) for value in values]
    named = isinstance(tensors, Mapping)
    by_name = dict(zip(names, samples, strict=True))
    measured, header = sizes.measure(by_name, named, methods, prior)
    return Report(tuple(map(_report, names, values, samples, measured)), header)


def _report(name: str, value: torch.Tensor, taken: torch.Tensor, size: sizes.Sizes) -> TensorReport:
    dtype = value.dtype.to_real() if value.is_complex() else value.dtype
    words = fields.as_words(taken)
    kind, precision = category.categorize(words, dtype)
    layout = fields.layout_of(dtype)
    magnitudes = words << 1 if layout[0][0] == "sign" else words
    elements, seen = value.numel(), taken.numel()
    scale = elements / seen if seen else 1.0
    sections = {part: round(count * scale) for part, count in size.sections.items()}
    by_method = {method: round(count * scale) for method, count in size.bytes.items()}
    by_method[size.best] = sum(sections.values())  # rounded part by part, so that they add up
    return TensorReport(
        name=name,
        dtype=value.dtype,
        shape=tuple(value.shape),
        category=kind,
        precision=precision,
        zeros=float((magnitudes == 0).double().mean()) if words.numel() else 0.0,
        fields=fields.measure(words, layout),
        spectrum=spectrum.spectrum_of(value),
        elements=elements,
        sampled=seen,
        raw_bytes=elements * value.itemsize,
        sizes=by_method,
        sections=sections,
        best=size.best,
    )


def _names(tensors: Tensors, count: int) -> list[str]:
    if isinstance(tensors, torch.Tensor):
        return [""]
    return list(tensors) if isinstance(tensors, Mapping) else [str(i) for i in range(count)]
