"""The command `lmgc`, run as its users run it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import prior_modules
import pytest
import torch
from helpers import all_identical, frame_by_hand, gradient, identical
from lm_priors import paying

import lmgc_torch
from lmgc_torch import Prior, cli

COMMAND = [sys.executable, "-m", "lmgc_torch.cli"]

needs_safetensors = pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="needs safetensors"
)


def lmgc(*arguments: object, code: int = 0, stdin: bytes | None = None) -> tuple[bytes, str]:
    """Runs the command in a process of its own; returns its output and its messages."""
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, timeout=300
    )
    messages = result.stderr.decode()
    assert result.returncode == code, messages
    assert "Traceback" not in messages
    return result.stdout, messages


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    """Runs the command in this process, which is quicker; returns its output and its messages."""

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        try:
            got = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            got = error.code
        out, messages = capfd.readouterr()
        assert got == code, messages
        return out, messages

    return run


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "weight": gradient(40, 30),
        "half": gradient(100, dtype=torch.bfloat16),
        "empty": torch.empty(0, 3),
        "step": torch.tensor(7),
    }


@pytest.fixture
def pt(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save(tensors, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def same(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    back = torch.load(path, weights_only=True)
    assert list(back) == list(tensors)
    assert all_identical(back.values(), tensors.values())


# ---- as processes --------------------------------------------------------------------------------


def test_there_and_back(pt: Path, tensors: dict[str, torch.Tensor]):
    _, messages = lmgc("compress", pt)
    frame = pt.with_name("model.pt.lmgc")
    assert f"{frame.stat().st_size:,} bytes" in messages
    assert messages.startswith("model.pt.lmgc: ")
    assert messages.count("\n") == 1
    assert "\x1b" not in messages
    pt.unlink()
    lmgc("decompress", frame)
    same(pt, tensors)
    assert files(pt.parent) == {"model.pt", "model.pt.lmgc"}


def test_pipes(pt: Path, tensors: dict[str, torch.Tensor]):
    frame, messages = lmgc("compress", "-", stdin=pt.read_bytes())
    assert messages.startswith("-: ")
    restored, _ = lmgc("decompress", "-", stdin=frame)
    assert all_identical(
        torch.load(io.BytesIO(restored), weights_only=True).values(), tensors.values()
    )
    out, _ = lmgc("test", "-", stdin=frame)
    assert out.startswith(b"-: ok, 4 tensors")


def test_exit_codes(tmp_path: Path):
    damaged = tmp_path / "damaged.lmgc"
    damaged.write_bytes(b"LMGC, but no more than that")
    lmgc("test", damaged, code=1)
    lmgc("test", tmp_path / "none.lmgc", code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, prior: Prior, prior_file: Path, number: int):
    """Ctrl-C in the middle of an operator: it ends at once, and nothing is left behind."""
    frame = lmgc_torch.compress(
        gradient(1000, 1000), method="lmgc", prior=prior, lane_elements=2**16
    )  # one lane: a minute of work
    (tmp_path / "long.lmgc").write_bytes(bytes(frame.tolist()))
    program = (
        "import sys\n"
        "from lmgc_torch import cli\n"
        "decompress = cli.api.decompress\n"
        "def announced(*arguments, **options):\n"
        "    print('working', flush=True)\n"
        "    return decompress(*arguments, **options)\n"
        "cli.api.decompress = announced\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", program, "decompress", "--prior", str(prior_file)),
            str(tmp_path / "long.lmgc"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    _, messages = process.communicate(timeout=10)
    assert process.returncode == 130
    assert messages.decode() == "lmgc decompress: interrupted\n"
    assert files(tmp_path) == {"long.lmgc"}


def test_a_reader_that_goes_away(pt: Path):
    torch.save(gradient(1000, 1000), pt)
    process = subprocess.Popen(
        [*COMMAND, "compress", "-q", "-m", "raw", pt, "-o", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=120) == 1
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_the_script_is_installed():
    script = Path(sys.executable).with_name("lmgc")
    if not script.exists():
        pytest.skip("the package is not installed")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=120)
    assert result.stdout == f"lmgc_torch {lmgc_torch.__version__}\n"


# ---- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "raw", "planes", "scale", "lowrank"])
def test_methods(run, pt: Path, tensors: dict[str, torch.Tensor], method: str):
    run("compress", "-m", method, pt)
    run("decompress", "-f", f"{pt}.lmgc")
    same(pt, tensors)


def test_method_lmgc(run, pt: Path, tensors: dict[str, torch.Tensor], prior_file: Path):
    run("compress", "-m", "lmgc", "--prior", prior_file, pt)
    run("decompress", "-f", "--prior", prior_file, f"{pt}.lmgc")
    same(pt, tensors)
    out, _ = run("info", f"{pt}.lmgc")
    assert "prior: fingerprint" in out
    run("test", "--prior", prior_file, f"{pt}.lmgc")


def test_method_lm(run, tmp_path: Path, prior_file: Path):
    """The bundled prior of the method is found on the way back, too."""
    file, content = tmp_path / "a.pt", {"w": paying(), "count": torch.arange(50)}
    torch.save(content, file)
    run("compress", "-m", "lm", "--rm", file)
    out, _ = run("info", f"{file}.lmgc")
    assert out.splitlines()[1].split()[:5] == ["w", "bfloat16", "32x36", "lm", "1"]
    assert "prior: fingerprint" in out
    out, _ = run("info", "--json", f"{file}.lmgc")
    assert list(json.loads(out)["tensors"][0]["sections"]) == ["side", "lanes", "tails"]
    run("test", f"{file}.lmgc")
    run("test", "--prior", "residual", f"{file}.lmgc")
    run("test", "--prior", prior_file, f"{file}.lmgc", code=1)
    run("decompress", f"{file}.lmgc")
    same(file, content)


@pytest.mark.parametrize("content", [gradient(5, 6), [gradient(3), torch.arange(4)], [], {}])
def test_what_pt_files_may_hold(run, tmp_path: Path, content: object):
    torch.save(content, tmp_path / "a.pt")
    run("compress", tmp_path / "a.pt", "-o", tmp_path / "b.lmgc")
    run("decompress", tmp_path / "b.lmgc")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    assert type(back) is type(content)
    if isinstance(content, torch.Tensor):
        assert identical(back, content)
    else:
        assert len(back) == len(content)


def test_state_dicts_and_parameters(run, tmp_path: Path):
    module = torch.nn.Linear(4, 4)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    torch.save(dict(module.named_parameters()), tmp_path / "b.pth")
    for name in ("a.pt", "b.pth"):
        run("compress", "--rm", tmp_path / name)
        run("decompress", tmp_path / f"{name}.lmgc")
        module.load_state_dict(torch.load(tmp_path / name, weights_only=True))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model": {"w": torch.ones(2)}}, "entry 'model' is a dict"),
        ({"lr": 0.1}, "entry 'lr' is a float"),
        ([torch.ones(1), "text"], "item 1 is a str"),
        ({0: torch.ones(2)}, "key 0"),
        (3, "holds a int"),
        ({"s": torch.eye(3).to_sparse()}, "sparse"),
    ],
)
def test_what_pt_files_may_not_hold(run, tmp_path: Path, content: object, says: str):
    torch.save(content, tmp_path / "a.pt")
    _, messages = run("compress", tmp_path / "a.pt", code=1)
    assert says in messages
    assert "a.pt" in messages
    assert files(tmp_path) == {"a.pt"}


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(50), bytes(1000)])
def test_files_that_hold_no_tensors(run, tmp_path: Path, content: bytes):
    (tmp_path / "a.pt").write_bytes(content)
    _, messages = run("compress", tmp_path / "a.pt", code=1)
    assert "a.pt is neither" in messages
    assert files(tmp_path) == {"a.pt"}


def test_code_in_pt_files_is_not_run(run, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"w": Evil()}, tmp_path / "a.pt")
    run("compress", tmp_path / "a.pt", code=1)
    assert files(tmp_path) == {"a.pt"}


@needs_safetensors
def test_safetensors(run, tmp_path: Path, tensors: dict[str, torch.Tensor]):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "mood": "bright ☀"})
    original = path.read_bytes()
    run("compress", "--rm", path)
    assert files(tmp_path) == {"model.safetensors.lmgc"}
    run("decompress", f"{path}.lmgc")
    back = load_file(path)
    assert back.keys() == tensors.keys()
    assert all(identical(back[name], tensors[name]) for name in tensors)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "mood": "bright ☀"}
    assert len(path.read_bytes()) == len(original)


@needs_safetensors
def test_safetensors_without_metadata_comes_back_byte_for_byte(run, tmp_path: Path, tensors):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    original = path.read_bytes()
    run("compress", path)
    run("decompress", "-f", f"{path}.lmgc")
    assert path.read_bytes() == original


@needs_safetensors
def test_the_output_s_suffix_chooses_the_format(run, pt: Path, tensors: dict[str, torch.Tensor]):
    from safetensors.torch import load_file

    run("compress", pt)
    run("decompress", f"{pt}.lmgc", "-o", pt.with_name("other.safetensors"))
    back = load_file(pt.with_name("other.safetensors"))
    assert all(identical(back[name], tensors[name]) for name in tensors)
    run("compress", pt.with_name("other.safetensors"))
    run("decompress", pt.with_name("other.safetensors.lmgc"), "-o", pt.with_name("third.pt"))
    back = torch.load(pt.with_name("third.pt"), weights_only=True)
    assert all(identical(back[name], tensors[name]) for name in tensors)


@needs_safetensors
def test_damaged_safetensors(run, tmp_path: Path, tensors: dict[str, torch.Tensor]):
    from safetensors.torch import save

    data = save(tensors)
    path = tmp_path / "model.safetensors"
    for damaged in (data[:-1], data[:20], b"\xff" * 8 + data[8:], data[:8] + b"{]" + data[10:]):
        path.write_bytes(damaged)
        run("compress", path, code=1)
    assert files(tmp_path) == {"model.safetensors"}


@needs_safetensors
def test_what_safetensors_cannot_hold(run, tmp_path: Path):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    run("compress", tmp_path / "list.pt")
    _, messages = run(
        *("decompress", tmp_path / "list.pt.lmgc", "-o", tmp_path / "a.safetensors"), code=2
    )
    assert "holds a list" in messages
    assert not (tmp_path / "a.safetensors").exists()


def test_frames_of_the_python_face(run, tmp_path: Path):
    path = tmp_path / "gradients.lmgc"
    frame = lmgc_torch.compress({"w": gradient(10)})
    path.write_bytes(bytes(frame.tolist()))
    run("decompress", path)
    assert identical(torch.load(tmp_path / "gradients.pt", weights_only=True)["w"], gradient(10))


@pytest.mark.parametrize(
    "file",
    [
        "3",
        '{"format":"zip"}',
        '{"format":["pt"]}',
        '{"format":"safetensors","metadata":{"a":1}}',
        '{"format":"pt","metadata":7}',
    ],
)
def test_foreign_notes_on_the_file_s_format(run, tmp_path: Path, file: str):
    metadata = b'{"lmgc":1,"names":[],"file":' + file.encode() + b"}"
    (tmp_path / "a.lmgc").write_bytes(frame_by_hand([], metadata=metadata))
    run("decompress", tmp_path / "a.lmgc")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {}


# ---- files that exist, or do not -----------------------------------------------------------------


def test_existing_files_are_kept(run, pt: Path):
    original = pt.read_bytes()
    run("compress", pt)
    first = Path(f"{pt}.lmgc").read_bytes()
    _, messages = run("compress", "-m", "raw", pt, code=2)
    assert "exists already" in messages
    assert Path(f"{pt}.lmgc").read_bytes() == first
    _, messages = run("decompress", f"{pt}.lmgc", code=2)
    assert "exists already" in messages
    assert pt.read_bytes() == original
    run("compress", "-f", "-m", "raw", pt)
    assert Path(f"{pt}.lmgc").read_bytes() != first


def test_rm(run, pt: Path, tensors: dict[str, torch.Tensor]):
    run("compress", "--rm", pt)
    assert files(pt.parent) == {"model.pt.lmgc"}
    run("decompress", "--rm", f"{pt}.lmgc")
    assert files(pt.parent) == {"model.pt"}
    same(pt, tensors)


def test_rm_keeps_the_input_when_something_fails(run, pt: Path):
    run("compress", pt)
    frame = Path(f"{pt}.lmgc")
    frame.write_bytes(frame.read_bytes()[:-1] + b"?")
    run("decompress", "--rm", "-f", frame, code=1)
    assert files(pt.parent) == {"model.pt", "model.pt.lmgc"}
    run("compress", "--rm", pt, code=2)  # the output exists
    assert pt.exists()


def test_rm_verifies_first(run, pt: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli.api, "decompress", lambda *args, **kwargs: {"weight": torch.ones(1)})
    _, messages = run("compress", "--rm", pt, code=1)
    assert "differs" in messages
    assert files(pt.parent) == {"model.pt"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "--rm", "-"),
        ("compress", "--rm", "{pt}", "-o", "-"),
        ("compress", "{pt}", "-o", "{pt}"),
        ("compress", "-f", "{pt}", "-o", "{pt}"),
        ("compress", "{folder}"),
        ("compress", "{pt}", "-o", "{folder}"),
        ("compress", "{pt}", "-o", "{folder}/none/a.lmgc"),
        ("compress", "{folder}/none.pt"),
        ("compress", "{pt}", "-m", "zip"),
        ("compress", "{pt}", "-m", "lmgc", "--prior", "no such prior"),
        ("compress", "{pt}", "-m", "lmgc", "--prior", "{folder}/none.pt"),
        ("compress", "{pt}", "--device", "no such device"),
        ("decompress", "{pt}"),
        ("decompress", "{folder}/none.lmgc"),
        ("test",),
        ("info", "{folder}/none.lmgc"),
        (),
    ],
)
def test_wrong_usage(run, pt: Path, arguments: tuple[str, ...]):
    original = pt.read_bytes()
    filled = [text.format(pt=pt, folder=pt.parent) for text in arguments]
    _, messages = run(*filled, code=2)
    assert messages.strip()
    assert pt.read_bytes() == original
    assert files(pt.parent) == {"model.pt"}


def test_a_failing_write_leaves_nothing(run, pt: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(file: object, data: object) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(cli.files, "write_frame", fail)
    _, messages = run("compress", pt, code=1)
    assert "No space left" in messages
    assert files(pt.parent) == {"model.pt"}


def test_output_has_the_usual_permissions(run, pt: Path):
    run("compress", pt)
    assert stat.S_IMODE(Path(f"{pt}.lmgc").stat().st_mode) == stat.S_IMODE(pt.stat().st_mode)


def test_links_and_devices_stay(run, pt: Path, tmp_path: Path):
    target, link = tmp_path / "target.lmgc", tmp_path / "link.lmgc"
    target.write_bytes(b"old")
    link.symlink_to(target)
    run("compress", "-f", pt, "-o", link)
    assert link.is_symlink()
    assert target.read_bytes()[:4] == b"LMGC"
    run("compress", pt, "-o", "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


# ---- test, info, messages ------------------------------------------------------------------------


def test_test_goes_on_after_a_damaged_file(run, pt: Path, tmp_path: Path):
    run("compress", pt)
    good = Path(f"{pt}.lmgc")
    bad = tmp_path / "bad.lmgc"
    data = bytearray(good.read_bytes())
    data[-1] ^= 1
    bad.write_bytes(data)
    out, messages = run("test", bad, good, code=1)
    assert out.startswith("model.pt.lmgc: ok, 4 tensors")
    assert "bad.lmgc" in messages
    assert "checksum" in messages
    run("test", good, tmp_path / "none.lmgc", code=2)
    out, messages = run("test", "-q", good)
    assert out == messages == ""
    assert files(tmp_path) == {"model.pt", "model.pt.lmgc", "bad.lmgc"}


def test_another_prior(run, pt: Path, prior_file: Path, tmp_path_factory, bound_prior):
    del bound_prior
    from helpers import write_prior

    other = write_prior(tmp_path_factory.mktemp("other") / "other.pt", context=16)
    run("compress", "-m", "lmgc", "--prior", prior_file, pt)
    _, messages = run("decompress", "-f", "--prior", other, f"{pt}.lmgc", code=1)
    assert "prior" in messages


def test_windows(run, pt: Path, prior_file: Path):
    run("compress", "-m", "lmgc", "--prior", prior_file, "--window", "sliding", pt)
    out, _ = run("info", "--json", f"{pt}.lmgc")
    assert json.loads(out)["prior"]["window"] == "sliding"
    run("test", "--prior", prior_file, f"{pt}.lmgc")
    run("compress", "--window", "open", pt, code=2)


def test_a_prior_that_fails(run, pt: Path, tmp_path: Path):
    prior_modules.load(prior_modules.Raises(), tmp_path)
    options = ("-m", "lmgc", "--prior", tmp_path / "Raises.pt", pt)
    _, messages = run("compress", *options, code=1)
    assert messages.count("\n") == 1
    assert "model.pt: the prior's method 'forward' failed: " in messages
    assert "no such luck" in messages
    prior_modules.load(prior_modules.DropsOut(), tmp_path)
    options = ("-m", "lmgc", "--prior", tmp_path / "DropsOut.pt", pt)
    _, messages = run("compress", *options, code=2)
    assert "two calls of this prior" in messages


def test_info(run, pt: Path, tensors: dict[str, torch.Tensor]):
    run("compress", pt)
    out, _ = run("info", f"{pt}.lmgc")
    assert all(name in out for name in tensors)
    out, _ = run("info", "--json", f"{pt}.lmgc")
    about = json.loads(out)
    assert [tensor["name"] for tensor in about["tensors"]] == list(tensors)
    assert [tensor["dtype"] for tensor in about["tensors"]] == [
        "float32",
        "bfloat16",
        "float32",
        "int64",
    ]
    assert about["bytes"] == Path(f"{pt}.lmgc").stat().st_size
    assert json.loads(about["metadata"])["file"] == {"format": "pt"}


def test_info_of_lowrank(run, tmp_path: Path):
    matrix = gradient(90, 4, seed=1) @ gradient(4, 70, seed=2)  # the first row of each is zero
    torch.save({"w": matrix}, tmp_path / "a.pt")
    run("compress", "-m", "lowrank", tmp_path / "a.pt")
    out, _ = run("info", tmp_path / "a.pt.lmgc")
    assert out.splitlines()[1].split()[:5] == ["w", "float32", "90x70", "lowrank", "3"]
    out, _ = run("info", "--json", tmp_path / "a.pt.lmgc")
    (tensor,) = json.loads(out)["tensors"]
    assert (tensor["method"], tensor["rank"]) == ("lowrank", 3)
    assert list(tensor["bits_per_element"]) == ["side", "digits", "escapes", "tails"]
    bits = 8 * tensor["section_bytes"] / 6300
    assert sum(tensor["bits_per_element"].values()) == pytest.approx(bits)


def test_quiet(run, pt: Path):
    assert run("compress", "-q", pt) == ("", "")
    assert run("decompress", "-q", "-f", f"{pt}.lmgc") == ("", "")


def test_progress_is_for_terminals(pt: Path):
    pytest.importorskip("rich")
    import pty

    main, other = pty.openpty()
    subprocess.run([*COMMAND, "compress", pt], stderr=other, timeout=300)
    os.close(other)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(main, 4096):
            shown += piece
    os.close(main)
    assert b"compressing model.pt" in shown
    assert b"model.pt.lmgc: " in shown
