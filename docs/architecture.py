"""Draws images/architecture.svg: the way of a tensor through the files of every layer.

``python docs/architecture.py`` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from drawing import MONO, box, picture, stack, step

IMAGE = Path(__file__).resolve().parent / "images" / "architecture.svg"

HEAD, SHARED = "#1e293b", "#475569"
LABEL, WIDE, GAP = 150, 160, 6  # widths: of the layers' names, of columns, between
TOP, LINE, SPACE = 52, 17, 20  # heights: of headings, of a stem, around a box's stems


class Layer(NamedTuple):
    """A row of the picture.

    Attributes:
        folder: Whose files are in it.
        note: What it is.
        colour: Of its boxes.
        boxes: Columns that a box takes, and its stems; a star: there are versions of the file for
            AVX2 or AVX-512. Names of folders end with a slash.
    """

    folder: str
    note: tuple[str, ...]
    colour: str
    boxes: tuple[tuple[int, str], ...]


STEPS = (
    ("elements", "types and views"),
    ("prediction", "what both sides know"),
    ("digits, bytes", "the serializers"),
    ("probabilities", "the priors"),
    ("coders", "streams and lanes"),
    ("frame", "sections, header"),
)
LAYERS = (
    Layer(
        "python/lmgc_torch",
        ("whole files, models,", "and training runs"),
        "#9f1239",
        ((2, "cli/ analyze/"), (2, "archive/ checkpoints/ files hf"), (2, "distributed/")),
    ),
    Layer(
        "python/lmgc_torch",
        ("the typed face",),
        "#0f766e",
        (
            (1, "form near_lossless"),
            (1, "memory warm_start past_frame"),
            (1, "serialize"),
            (1, "prior priors/ export/"),
            (1, "baselines"),
            (1, "api frame_info"),
        ),
    ),
    Layer(
        "csrc/ops",
        ("operators: checks,", "searches, dispatch"),
        "#1d4ed8",
        (
            (1, "dtype near_lossless fixed_view"),
            (
                1,
                "scales low_rank search_limits spectrum rank_choice panels panel_product "
                "projection delta",
            ),
            (1, "serialize features fixed fixed_device planes"),
            (1, "prior prior_contract prior_state prior_probe native_prior"),
            (
                1,
                "lm digit_coders digit_module digit_device lmgc lmgc_encode lmgc_decode "
                "lane_group lockstep",
            ),
            (
                1,
                "compress joining decompress info tables section memory warm_start past_frame "
                "checksum",
            ),
        ),
    ),
    Layer(
        "csrc/core",
        ("the codec: C++20", "without torch", "* also for AVX"),
        "#b45309",
        (
            (1, "float_format short_floats near_lossless"),
            (
                1,
                "predict residual_scales rice flag_runs factors fixed_factors integer_product* "
                "integer_product_plan integer_product_tiles projection delta",
            ),
            (
                1,
                "serialize windows lanes fixed* fixed_walk fixed_blocks fixed_kernels* fixed_sums* "
                "fixed_reference* fixed_tails* plane_bytes plane_kernels*",
            ),
            (
                1,
                "cdf histogram segments segment_kernels* mixture gaussian digit_context "
                "digit_prior digit_starts",
            ),
            (
                1,
                "entropy rans* rans_block rans_runs rans_contexts* warp_rans digits warp_digits "
                "range_coder lane_coding lane_tails digit_coder digit_engine digit_kernels* "
                "digit_slots* digit_coding* digit_lane",
            ),
            (1, "planes fixed_section lm_section frame checksum* status version"),
        ),
    ),
    Layer(
        "csrc/cuda",
        ("core's function", "objects as kernels"),
        "#7e22ce",
        (
            (1, "short_floats survey survey_jobs near_lossless"),
            (1, "predict"),
            (
                1,
                "serialize fixed fixed_decoder fixed_jobs planes planes_jobs planes_chunks "
                "planes_decoder",
            ),
            (1, ""),
            (1, "entropy entropy_jobs lane_coding digit_lane"),
            (1, "heads checksum checksum_jobs"),
        ),
    ),
)
# What every column uses, and the other faces: by folder.
BENEATH = (
    ("python/lmgc_torch", "errors _library _fake __main__"),
    ("csrc/ops", "library options error for_each team device_memory upload"),
    ("csrc/core", "bits bytes integer_math* spread parallel scratch host_device warp isa"),
    ("csrc/cuda", "launch task_list warp memory uploads runtime"),
    ("csrc/api, pybind", "lmgc module build_config"),
    ("reference.py", "reference_*"),
)


def left(column: int) -> int:
    """Returns where a column begins."""
    return LABEL + GAP + column * (WIDE + GAP)


def lines_of(stems: str, columns: int) -> list[str]:
    """Returns the lines of a box: one a stem, or one for all where the box is wide."""
    names = stems.split()
    return names if columns == 1 else [" ".join(names)]


def svg() -> str:
    """Returns the picture."""
    width = left(len(STEPS)) - GAP
    parts = [box(0, 0, LABEL, TOP, HEAD)]
    parts += stack(LABEL / 2, TOP / 2, [("The way of", "ask", 18), ("a tensor", "ask", 18)])
    for column, (title, note) in enumerate(STEPS):
        last = column == len(STEPS) - 1
        parts.append(step(left(column), 0, WIDE - (12 if last else 4), TOP, HEAD))
        lines = [(title, "head", 20), (note, "small", 15)]
        parts += stack(left(column) + WIDE / 2 + 4, TOP / 2, lines)
    y = TOP + GAP
    for layer in LAYERS:
        drawn = [(columns, lines_of(stems, columns)) for columns, stems in layer.boxes]
        most = max(len(layer.note) + 1, *(len(lines) for _, lines in drawn))
        high = most * LINE + SPACE
        parts.append(box(0, y, LABEL, high, layer.colour))
        label = [(layer.folder, "folder", 20), *((line, "small", 15) for line in layer.note)]
        parts += stack(LABEL / 2, y + high / 2, label)
        column = 0
        for columns, lines in drawn:
            x, right = left(column), left(column + columns) - GAP
            if lines:
                parts.append(box(x, y, right - x, high, layer.colour))
            parts += stack((x + right) / 2, y + high / 2, [(name, "stem", LINE) for name in lines])
            column += columns
        y += high + GAP
    high = (1 + max(len(stems.split()) for _, stems in BENEATH)) * LINE + SPACE
    parts.append(box(0, y, LABEL, high, SHARED))
    label = [("beneath", "head", 20), ("what all of them use,", "small", 15)]
    label += [("other faces, and the", "small", 15), ("second decoder", "small", 15)]
    parts += stack(LABEL / 2, y + high / 2, label)
    for column, (folder, stems) in enumerate(BENEATH):
        parts.append(box(left(column), y, WIDE, high, SHARED))
        lines = [(folder, "folder", 20), *((name, "stem", LINE) for name in stems.split())]
        parts += stack(left(column) + WIDE / 2, y + high / 2, lines)
    styles = [
        ".head { font-size: 15px; font-weight: 700; } .ask { font-size: 14px; font-weight: 600; }",
        ".small { font-size: 11.5px; } .folder { font-size: 13px; font-weight: 700; }",
        f".stem {{ font-family: {MONO}; font-size: 12px; }}",
    ]
    return picture("The layers of lmgc_torch", width, y + high, styles, parts)


if __name__ == "__main__":
    IMAGE.write_text(svg(), encoding="utf-8")
