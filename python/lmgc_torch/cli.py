"""``lmgc``: compress files of tensors from the command line.

    lmgc compress model.safetensors        writes model.safetensors.lmgc
    lmgc decompress model.safetensors.lmgc
    lmgc test model.safetensors.lmgc
    lmgc info model.safetensors.lmgc
    lmgc analyze model.safetensors
    lmgc export-prior CHECKPOINT -o prior.pt

Inputs are .safetensors files and .pt files (read with ``weights_only=True``) that hold a tensor, a
list of tensors or a dict of tensors. A .lmgc file is one frame; its metadata remember under "file"
which of the two it came from: {"format": "pt"} or {"format": "safetensors", "metadata": {...}}.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from lmgc_torch import __version__, api, export, files
from lmgc_torch.analyze import command as analyze_command
from lmgc_torch.errors import LmgcError
from lmgc_torch.files import (
    PT_SUFFIXES,
    SAFETENSORS_SUFFIX,
    STANDARD,
    SUFFIX,
    DataError,
    Tensors,
    UsageError,
)
from lmgc_torch.frame_info import FrameInfo

EXIT_OK = 0
EXIT_DATA = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_EPILOG = """\
FILE - is standard input, OUT - is standard output. Existing files are kept unless -f is given, and
an output appears only when it is complete.

exit codes: 0 all went well; 1 the data: a damaged file, one that holds no tensors, another prior;
2 the command: wrong options, a missing input, an output that exists; 130 interrupted"""

Result = TypeVar("Result")


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
    sub.add_argument(
        "--window",
        choices=api.WINDOWS,
        default="disjoint",
        help="for lmgc: whether the model's context starts anew or slides; default: disjoint",
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

    analyze_command.add_arguments(
        command("analyze", analyze_command.run, analyze_command.HELP),
    )

    sub = command(
        "export-prior", _export_prior, "turn a checkpoint of a language model into a prior"
    )
    sub.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder, or the name of a model on the Hugging Face hub: GPT-2, Llama, Mistral",
    )
    sub.add_argument("-o", "--output", metavar="OUT", required=True, help="output file")
    sub.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    sub.add_argument(
        "--max-context",
        metavar="N",
        type=int,
        help=f"tokens of a window; default: {export.DEFAULT_CONTEXT}, or the model's most",
    )
    dtypes = [_dtype_name(dtype) for dtype in export.DTYPES]
    sub.add_argument(
        "--dtype", choices=dtypes, default=dtypes[0], help=f"to compute in; default: {dtypes[0]}"
    )
    sub.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    sub.set_defaults(rm=False)
    return parser


# ---- commands ----------------------------------------------------------------------------------


def _compress(options: argparse.Namespace) -> int:
    source = _input(options)
    output = _output(options, source, STANDARD if source is None else f"{source}{SUFFIX}")
    name = files.name_of(source)
    with _busy(options, f"reading {name}"):
        tensors, origin = files.load(source)
        tensors = _on_device(tensors, options.device)
    with _busy(options, f"compressing {name}"), _named_errors(name):
        frame = _interruptible(
            lambda: api.compress_with(
                tensors,
                {"file": origin.to_json()},
                method=options.method,
                prior=options.prior,
                window=options.window,
            )
        ).cpu()
    if options.rm:
        with _busy(options, f"verifying {name}{SUFFIX}"), _named_errors(name):
            moved = frame.to(options.device)
            _verify(
                tensors, _interruptible(lambda: api.decompress(moved, prior=options.prior)), name
            )
    files.write_whole(output, lambda file: files.write_frame(file, frame))
    if options.rm and source is not None:
        source.unlink()
    if not options.quiet:
        print(f"{files.name_of(output)}: {_size_line(api.info(frame))}", file=sys.stderr)
    return EXIT_OK


def _decompress(options: argparse.Namespace) -> int:
    source = _input(options)
    name = files.name_of(source)
    default = STANDARD
    if source is not None and options.output is None:
        if source.suffix != SUFFIX:
            raise UsageError(f"{name} does not end with {SUFFIX}: name the output with -o")
        default = str(source.with_suffix(""))
    with _named_errors(name):
        frame = files.read_frame(source)
        info = api.info(frame)
    origin = files.Origin.of_frame(info)
    if default != STANDARD and not default.endswith((*PT_SUFFIXES, SAFETENSORS_SUFFIX)):
        default += "." + origin.format
    output = _output(options, source, default)
    format_ = origin.format
    if output is not None and output.suffix == SAFETENSORS_SUFFIX:
        format_ = "safetensors"
    elif output is not None and output.suffix in PT_SUFFIXES:
        format_ = "pt"
    if format_ == "safetensors":
        files.safetensors_package()
        if info.kind != "dict":
            raise UsageError(
                f"{name} holds a {info.kind}, and a .safetensors file a dict: write to a .pt file"
            )
    with _busy(options, f"decompressing {name}"), _named_errors(name):
        tensors = _decode(frame, options)
    if format_ == "safetensors":
        files.write_whole(
            output, lambda file: files.save_safetensors(file, tensors, origin.metadata, name)
        )
    else:
        files.write_whole(output, lambda file: files.save_pt(file, tensors))
    if options.rm and source is not None:
        source.unlink()
    if not options.quiet:
        print(f"{files.name_of(output)}: {info.raw_bytes:,} bytes of tensors", file=sys.stderr)
    return EXIT_OK


def _test(options: argparse.Namespace) -> int:
    code = EXIT_OK
    for file in options.files:
        options.file = file
        try:
            source = _input(options)
            name = files.name_of(source)
            with _busy(options, f"testing {name}"), _named_errors(name):
                frame = files.read_frame(source)
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
    with _named_errors(files.name_of(source)):
        info = api.info(files.read_frame(source))
    print(json.dumps(_as_json(info), indent=2) if options.json else info)
    return EXIT_OK


def _export_prior(options: argparse.Namespace) -> int:
    output = _output(options, None, STANDARD)
    name = options.checkpoint
    export.quiet_transformers()
    with _busy(options, f"exporting {name}"), _named_errors(name):
        done = export.export_prior(
            name,
            output,
            max_context=options.max_context,
            dtype=getattr(torch, options.dtype),
        )
    if not options.quiet:
        size = f"{done.bytes:,} bytes, " if done.bytes else ""
        print(
            f"{files.name_of(output)}: {done.architecture}, {done.parameters:,} parameters in "
            f"{_dtype_name(done.dtype)}, {size}windows of {done.max_context} tokens; separators: "
            f"{', '.join(done.separators)}",
            file=sys.stderr,
        )
    return EXIT_OK


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _as_json(info: FrameInfo) -> dict[str, Any]:
    tensors = [
        {
            **dataclasses.asdict(tensor),
            "dtype": _dtype_name(tensor.dtype),
            "ratio": tensor.ratio,
            "bits_per_element": tensor.bits_per_element,
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


def _size_line(info: FrameInfo) -> str:
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
    except (LmgcError, export.CheckpointError) as error:
        raise DataError(f"{name}: {error}") from error
    except RuntimeError as error:  # no memory, or a prior's own
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


def _input(options: argparse.Namespace) -> Path | None:
    """Returns the input's path, None for standard input."""
    source = files.input_path(options.file)
    if source is None and getattr(options, "rm", False):
        raise UsageError("standard input cannot be removed: leave out --rm")
    return source


def _output(options: argparse.Namespace, source: Path | None, default: str) -> Path | None:
    """Returns the output's path, None for standard output."""
    name = default if options.output is None else options.output
    if name == STANDARD and sys.stdout.isatty() and not options.force:
        raise UsageError("bytes do not belong on a terminal: name the output with -o, or use -f")
    if name == STANDARD and options.rm:
        raise UsageError("standard output may go anywhere: leave out --rm")
    return files.output_path(name, source, overwrite=options.force)


if __name__ == "__main__":
    sys.exit(main())
