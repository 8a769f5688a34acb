"""The sizes of a run of the report, and the jobs that make it up."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paper.cells import NOISE, Job
from paper.draws import SOURCES, TRAINING, Source
from paper.hex_text import Text
from paper.lossy import TRANSFORMS

SEPARATORS = ("iso-8859-1", "none", "space", "comma", "comma_space", "semicolon", "0x")
GROUPS = (1, 2, 3, 4, 8, None)
DATA = "cifar10"  # of everything but Table 3
SPACE, NONE = Text("space", 4), Text("none", None)
RUNS = ("fp32", "8 bits")  # what is also run-length coded
# One element a group: of a 16-bit code two bytes.
LOSSY_TEXTS = {"1 bit": Text("space", 1), "8 bits": Text("space", 1), "16 bits": Text("space", 2)}


@dataclass(frozen=True)
class Settings:
    """How large everything is."""

    draws: int = 3
    slice_bytes: int = 1 << 15  # of each draw, in most cells
    short_bytes: int = 1 << 14  # in Fig. 2, Fig. 4 and Table 4
    window: int = 512  # tokens, in everything but Fig. 2
    windows: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    steps: tuple[int, ...] = (3, 10, 25)  # whose gradients are kept, of 0, 1, ...
    training_steps: tuple[int, ...] = (4, 12, 30)
    train_batches: int = 1200
    width: int = 128  # of the language model
    depth: int = 2
    tiny: bool = False  # small networks on small samples, for tests

    def source(self, data: str) -> Source:
        return self.shrunk(SOURCES[data])

    def training_sources(self) -> list[Source]:
        return [self.shrunk(source) for source in TRAINING]

    def shrunk(self, source: Source) -> Source:
        if not self.tiny:
            return source
        width = 16 if source.network in ("vit", "gpt") else 8
        options = tuple(
            (name, width if name == "width" else 1 if source.network in ("vit", "gpt") else value)
            for name, value in source.options
        )
        return replace(source, options=options, packaged=True)


DEFAULT = Settings()
QUICK = Settings(
    draws=1,
    slice_bytes=1024,
    short_bytes=512,
    window=64,
    windows=(64, 128),
    steps=(0, 1),
    training_steps=(0, 1),
    train_batches=4,
    width=32,
    depth=1,
    tiny=True,
)


def text_of(payload: str) -> Text:
    """How the language model sees a payload."""
    return LOSSY_TEXTS.get(payload.removeprefix("runs of "), SPACE)


def lm_jobs(settings: Settings) -> list[Job]:
    """The cells of the language model, without repetition."""

    def job(data: str, payload: str, size: int, text: Text, window: int = settings.window) -> Job:
        return Job("lm", data, payload, size, text, window)

    size, short = settings.slice_bytes, settings.short_bytes
    texts = [Text(name, 4 if name not in ("none", "iso-8859-1") else None) for name in SEPARATORS]
    texts += [Text("space", group) for group in GROUPS if group is not None]
    texts += [Text("space", 4, "little"), Text("none", None, "little")]
    jobs = [job(DATA, "fp32", size, text) for text in texts]
    jobs += [job(data, "fp32", size, text) for data in SOURCES for text in (NONE, SPACE)]
    jobs += [job(DATA, NOISE, short, SPACE)]
    jobs += [job(DATA, "fp32", short, SPACE, window) for window in settings.windows]
    jobs += [job(DATA, name, short, text_of(name)) for name in TRANSFORMS]
    jobs += [job(DATA, f"runs of {name}", short, text_of(name)) for name in RUNS]
    return list(dict.fromkeys(jobs))


def codec_jobs(settings: Settings) -> list[Job]:
    """The cells of general codecs and of our own methods."""
    jobs = [Job("whole", data) for data in SOURCES]
    jobs += [Job("codecs", data, "fp32", settings.slice_bytes) for data in SOURCES]
    payloads = [NOISE, "fp32", *TRANSFORMS, *(f"runs of {name}" for name in RUNS)]
    jobs += [Job("codecs", DATA, payload, settings.short_bytes) for payload in payloads]
    return jobs
