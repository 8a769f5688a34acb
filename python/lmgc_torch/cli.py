"""``lmgc``: compress files of tensors from the command line.

    lmgc compress model.safetensors        writes model.safetensors.lmgc
    lmgc decompress model.safetensors.lmgc
    lmgc test model.safetensors.lmgc
    lmgc info model.safetensors.lmgc

Inputs are .safetensors files and .pt files (read with ``weights_only=True``) that hold a tensor, a
list of tensors or a dict of tensors. A .lmgc file is one frame; its metadata remember under "file"
which of the two it came from: {"format": "pt"} or {"format": "safetensors", "metadata": {...}}.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import io
import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import torch

from lmgc_torch import __version__, api
from lmgc_torch.errors import LmgcError

EXIT_OK = 0
EXIT_DATA = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

SUFFIX = ".lmgc"
PT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"
STANDARD = "-"

_EPILOG = """\
FILE - is standard input, OUT - is standard output. Existing files are kept unless -f is given, and
an output appears only when it is complete.

exit codes: 0 all went well; 1 the data: a damaged file, one that holds no tensors, another prior;
2 the command: wrong options, a missing input, an output that exists; 130 interrupted"""

Result = TypeVar("Result")
Tensors = torch.Tensor | list[torch.Tensor] | dict[str, torch.Tensor]


class DataError(Exception):
    """What a file holds does not do."""


class UsageError(Exception):
    """The command does not do."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a file of tensors was beside its tensors.

    Attributes:
        format: "pt" or "safetensors".
        metadata: The texts that safetensors keeps with the tensors, by key.
    """

    format: str = "pt"
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns what the frame's metadata hold under "file"."""
        return {"format": self.format, **({"metadata": self.metadata} if self.metadata else {})}

    @classmethod
    def of_frame(cls, info: api.FrameInfo) -> "Origin":
        """Reads it from a frame; frames of other makers are taken for .pt files."""
        try:
            keys = json.loads(info.metadata)["file"]
            origin = cls(keys["format"], dict(keys.get("metadata", {})))
        except (ValueError, RecursionError, TypeError, KeyError):
            return cls()
        known = origin.format in ("pt", "safetensors")
        texts = all(isinstance(text, str) for pair in origin.metadata.items() for text in pair)
        return origin if known and texts else cls()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What stands behind ``lmgc``; None takes ``sys.argv``.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        with contextlib.suppress(ValueError):  # signals belong to the main thread
            signal.signal(signal.SIGTERM, _terminated)
        return run(options)
    except UsageError as error:
        return _complain(options, str(error), EXIT_USAGE)
    except DataError as error:
        return _complain(options, str(error), EXIT_DATA)
    except ImportError as error:
        return _complain(options, str(error), EXIT_USAGE)
    except BrokenPipeError:  # the reader of standard output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_DATA
    except OSError as error:
        return _complain(options, str(error), EXIT_DATA)
    except KeyboardInterrupt:
        _complain(options, "interrupted", EXIT_INTERRUPTED)
        # An operator may still be at work in its thread, and it knows no interruption.
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


def _terminated(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _complain(options: argparse.Namespace, message: str, code: int) -> int:
    print(f"lmgc {options.command}: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lmgc",
        description="Lossless compression of tensors.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lmgc_torch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help_: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help_,
            description=help_[0].upper() + help_[1:] + ".",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    def add_common(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--prior",
            metavar="P",
            help="the language model: a TorchScript file that you trust, or a bundled one's name",
        )
        sub.add_argument("--device", default="cpu", help="where to work: cpu (default), cuda, ...")
        sub.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")

    def add_output(sub: argparse.ArgumentParser, default: str) -> None:
        sub.add_argument("-o", "--output", metavar="OUT", help=f"output file; default: {default}")
        sub.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
        sub.add_argument(
            "--rm", action="store_true", help="remove FILE at the end, once OUT was verified"
        )

    sub = command("compress", _compress, "compress a .pt or .safetensors file")
    sub.add_argument("file", metavar="FILE")
    add_output(sub, "FILE" + SUFFIX)
    sub.add_argument(
        "-m", "--method", choices=api.METHODS, default="auto", help="how to code; default: auto"
    )
    add_common(sub)

    sub = command("decompress", _decompress, "restore the file that was compressed")
    sub.add_argument("file", metavar="FILE" + SUFFIX)
    add_output(sub, "FILE; the suffix of OUT chooses .pt or .safetensors")
    add_common(sub)

    sub = command("test", _test, "decode files and verify their checksums; write nothing")
    sub.add_argument("files", metavar="FILE" + SUFFIX, nargs="+")
    add_common(sub)

    sub = command("info", _info, "show what is in a compressed file")
    sub.add_argument("file", metavar="FILE" + SUFFIX)
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


# ---- commands ----------------------------------------------------------------------------------


def _compress(options: argparse.Namespace) -> int:
    source = _input(options)
    output = _output(options, STANDARD if source is None else f"{source}{SUFFIX}", binary=True)
    name = _name(source)
    with _busy(options, f"reading {name}"):
        tensors, origin = _load(source)
        tensors = _on_device(tensors, options.device)
    with _busy(options, f"compressing {name}"), _named_errors(name):
        frame = _interruptible(
            lambda: api.compress_with(
                tensors,
                {"file": origin.to_json()},
                method=options.method,
                prior=options.prior,
            )
        ).cpu()
    if options.rm:
        with _busy(options, f"verifying {name}{SUFFIX}"), _named_errors(name):
            moved = frame.to(options.device)
            _verify(
                tensors, _interruptible(lambda: api.decompress(moved, prior=options.prior)), name
            )
    _write(output, lambda file: _write_bytes(file, frame))
    if options.rm and source is not None:
        source.unlink()
    if not options.quiet:
        print(f"{_name(output)}: {_size_line(api.info(frame))}", file=sys.stderr)
    return EXIT_OK


def _decompress(options: argparse.Namespace) -> int:
    source = _input(options)
    name = _name(source)
    default = STANDARD
    if source is not None and options.output is None:
        if source.suffix != SUFFIX:
            raise UsageError(f"{name} does not end with {SUFFIX}: name the output with -o")
        default = str(source.with_suffix(""))
    with _named_errors(name):
        frame = _read_frame(source)
        info = api.info(frame)
    origin = Origin.of_frame(info)
    if default != STANDARD and not default.endswith((*PT_SUFFIXES, SAFETENSORS_SUFFIX)):
        default += "." + origin.format
    output = _output(options, default, binary=True)
    format_ = origin.format
    if output is not None and output.suffix == SAFETENSORS_SUFFIX:
        format_ = "safetensors"
    elif output is not None and output.suffix in PT_SUFFIXES:
        format_ = "pt"
    if format_ == "safetensors":
        _safetensors()
        if info.kind != "dict":
            raise UsageError(
                f"{name} holds a {info.kind}, and a .safetensors file a dict: write to a .pt file"
            )
    with _busy(options, f"decompressing {name}"), _named_errors(name):
        tensors = _decode(frame, options)
    if format_ == "safetensors":
        _write(output, lambda file: _save_safetensors(file, tensors, origin.metadata, name))
    else:
        _write(output, lambda file: _save_pt(file, tensors))
    if options.rm and source is not None:
        source.unlink()
    if not options.quiet:
        print(f"{_name(output)}: {info.raw_bytes:,} bytes of tensors", file=sys.stderr)
    return EXIT_OK


def _test(options: argparse.Namespace) -> int:
    code = EXIT_OK
    for file in options.files:
        options.file = file
        try:
            source = _input(options)
            name = _name(source)
            with _busy(options, f"testing {name}"), _named_errors(name):
                frame = _read_frame(source)
                info = api.info(frame)
                _decode(frame, options)
        except DataError as error:
            code = max(code, _complain(options, str(error), EXIT_DATA))
        except UsageError as error:
            code = max(code, _complain(options, str(error), EXIT_USAGE))
        else:
            if not options.quiet:
                print(f"{name}: ok, {len(info.tensors)} tensors, {_size_line(info)}")
    return code


def _info(options: argparse.Namespace) -> int:
    source = _input(options)
    with _named_errors(_name(source)):
        info = api.info(_read_frame(source))
    print(json.dumps(_as_json(info), indent=2) if options.json else info)
    return EXIT_OK


def _as_json(info: api.FrameInfo) -> dict[str, Any]:
    tensors = [
        {
            **dataclasses.asdict(tensor),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "ratio": tensor.ratio,
        }
        for tensor in info.tensors
    ]
    return {
        **{field.name: getattr(info, field.name) for field in dataclasses.fields(info)},
        "method": info.method,
        "raw_bytes": info.raw_bytes,
        "ratio": info.ratio,
        "sections": info.sections,
        "tensors": tensors,
    }


def _size_line(info: api.FrameInfo) -> str:
    return f"{info.ratio:.2f} % ({info.raw_bytes:,} -> {info.bytes:,} bytes, {info.method})"


# ---- work that takes long ----------------------------------------------------------------------


def _decode(frame: torch.Tensor, options: argparse.Namespace) -> Tensors:
    moved = _on_device(frame, options.device)
    tensors = _interruptible(lambda: api.decompress(moved, prior=options.prior))
    restored: Tensors = _on_device(tensors, "cpu")
    return restored


def _on_device(tensors: Any, device: str) -> Any:
    try:
        if isinstance(tensors, torch.Tensor):
            return tensors.to(device)
        if isinstance(tensors, Mapping):
            return {name: tensor.to(device) for name, tensor in tensors.items()}
        return [tensor.to(device) for tensor in tensors]
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise UsageError(f"device {device}: {str(error).splitlines()[0]}") from error


def _verify(before: Tensors, after: Tensors, name: str) -> None:
    def parts(tensors: Tensors) -> list[torch.Tensor]:
        if isinstance(tensors, torch.Tensor):
            return [tensors]
        return list(tensors.values() if isinstance(tensors, dict) else tensors)

    def bits(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)

    same = type(before) is type(after) and len(parts(before)) == len(parts(after))
    if isinstance(before, dict) and isinstance(after, dict):
        same = same and list(before) == list(after)
    for one, two in zip(parts(before), parts(after), strict=False):
        same = same and one.dtype == two.dtype and one.shape == two.shape
        same = same and torch.equal(bits(one), bits(two))
    if not same:
        raise DataError(f"{name}: what decodes differs from what was encoded; nothing was written")


def _interruptible(work: Callable[[], Result]) -> Result:
    """Runs `work` in a thread of its own, so that Ctrl-C need not wait for an operator's end."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turns the library's errors into ours, with the name of the file."""
    try:
        yield
    except FileNotFoundError as error:  # a prior's: inputs were looked for before
        raise UsageError(str(error)) from error
    except LmgcError as error:
        raise DataError(f"{name}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise DataError(f"{name}: {str(error).splitlines()[0]}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {error}") from error


@contextlib.contextmanager
def _busy(options: argparse.Namespace, text: str) -> Iterator[None]:
    """Shows on a terminal what is going on, if rich is there to draw it."""
    if options.quiet or not sys.stderr.isatty():
        yield
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(text, total=None)
        yield


# ---- files -------------------------------------------------------------------------------------


def _input(options: argparse.Namespace) -> Path | None:
    """Returns the input's path, None for standard input."""
    if options.file == STANDARD:
        if getattr(options, "rm", False):
            raise UsageError("standard input cannot be removed: leave out --rm")
        return None
    path = Path(options.file)
    if not path.exists():
        raise UsageError(f"there is no file {options.file}")
    if path.is_dir():
        raise UsageError(f"{options.file} is a folder")
    return path


def _output(options: argparse.Namespace, default: str, *, binary: bool) -> Path | None:
    """Returns the output's path, None for standard output."""
    name = default if options.output is None else options.output
    if name == STANDARD:
        if binary and sys.stdout.isatty() and not options.force:
            raise UsageError(
                "bytes do not belong on a terminal: name the output with -o, or use -f"
            )
        if options.rm:
            raise UsageError("standard output may go anywhere: leave out --rm")
        return None
    path = Path(os.path.realpath(name))  # what a link names is replaced, not the link
    if path.is_dir():
        raise UsageError(f"{name} is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}")
    if options.file != STANDARD and path.exists() and path.samefile(options.file):
        raise UsageError(f"{name} is the input itself")
    if path.is_file() and not options.force:
        raise UsageError(f"{name} exists already: choose another name, or overwrite it with -f")
    return path


def _name(path: Path | None) -> str:
    return STANDARD if path is None else path.name


def _write(path: Path | None, write: Callable[[BinaryIO], None]) -> None:
    """Writes a whole file, or none: under another name first."""
    if path is None:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():  # a device or a pipe: not ours to replace
        with path.open("wb") as file:
            write(file)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_bytes(source: Path | None) -> bytearray:
    if source is None:
        return bytearray(sys.stdin.buffer.read())
    with source.open("rb") as file:
        return bytearray(file.read())


def _read_frame(source: Path | None) -> torch.Tensor:
    data = _read_bytes(source)
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8)


def _write_bytes(file: BinaryIO, data: torch.Tensor) -> None:
    data = data.contiguous()
    file.write(memoryview((ctypes.c_ubyte * data.numel()).from_address(data.data_ptr())))


def _load(source: Path | None) -> tuple[Tensors, Origin]:
    """Reads a file of tensors, by its content."""
    name = _name(source)
    data = _read_bytes(source)
    header = _safetensors_header(data)
    if header is not None:
        return _load_safetensors(bytes(data), header, name)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make it raise nearly anything
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{name} is neither a .safetensors file nor a .pt file that torch.load reads with "
            f"weights_only=True: {first}"
        ) from error
    return _checked(content, name), Origin("pt")


def _checked(content: object, name: str) -> Tensors:
    """Returns what a .pt file holds if it is made of tensors alone."""
    if isinstance(content, torch.Tensor):
        return content
    entries: list[tuple[str, object]]
    if isinstance(content, Mapping):
        for key in content:
            if not isinstance(key, str):
                raise DataError(f"{name} holds a dict whose key {key!r} is no str")
        entries = [(f"entry {key!r}", value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        entries = [(f"item {index}", value) for index, value in enumerate(content)]
    else:
        raise DataError(
            f"{name} holds a {type(content).__name__}; lmgc takes a tensor, or a list or dict of "
            "tensors"
        )
    for what, value in entries:
        if not isinstance(value, torch.Tensor):
            raise DataError(
                f"{name} holds a {type(content).__name__} whose {what} is a "
                f"{type(value).__name__}; lmgc takes tensors alone, not nested ones (save the "
                "model's state_dict by itself)"
            )
    try:
        values, _ = api.flatten(content)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    return dict(zip(content, values, strict=True)) if isinstance(content, Mapping) else values


def _save_pt(file: BinaryIO, tensors: Tensors) -> None:
    torch.save(tensors, file)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise UsageError("reading and writing .safetensors needs: pip install safetensors") from (
            error
        )
    return safetensors


def _safetensors_header(data: bytearray) -> dict[str, Any] | None:
    """Returns the JSON header of a .safetensors file, None if it is none."""
    if len(data) < 10 or data[8:9] != b"{":
        return None
    (size,) = struct.unpack_from("<Q", data)
    if size > len(data) - 8:
        return None
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _load_safetensors(data: bytes, header: dict[str, Any], name: str) -> tuple[Tensors, Origin]:
    package = _safetensors()
    try:
        tensors: dict[str, torch.Tensor] = package.torch.load(data)
    except Exception as error:
        raise DataError(f"{name} is not a sound .safetensors file: {error}") from error
    order = [key for key in header if key in tensors]  # as they lie in the file
    metadata = {str(key): str(text) for key, text in header.get("__metadata__", {}).items()}
    return {key: tensors[key] for key in order}, Origin("safetensors", metadata)


def _save_safetensors(
    file: BinaryIO, tensors: Tensors, metadata: dict[str, str], name: str
) -> None:
    try:
        file.write(_safetensors().torch.save(tensors, metadata or None))
    except (ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{name}: .safetensors cannot hold these tensors: {error}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise DataError(f"{name}: .safetensors cannot hold these tensors: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
