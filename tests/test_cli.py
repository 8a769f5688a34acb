"""The command `lmgc` as a whole: processes, signals, usage."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import LMGC, files, holds, lmgc
from helpers import all_identical, gradient

import lmgc_torch
from lmgc_torch import Prior, cli


def test_there_and_back(pt: Path, tensors: dict[str, torch.Tensor]):
    _, messages = lmgc("compress", pt)
    frame = pt.with_name("model.pt.lmgc")
    assert f"{frame.stat().st_size:,} bytes" in messages
    assert messages.startswith("model.pt.lmgc: ")
    assert messages.count("\n") == 1
    assert "\x1b" not in messages
    pt.unlink()
    lmgc("decompress", frame)
    assert holds(pt, tensors)
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


@pytest.mark.parametrize(
    ("command", "number"), [("compress", signal.SIGINT), ("decompress", signal.SIGTERM)]
)
def test_interrupted(tmp_path: Path, prior: Prior, prior_file: Path, number: int, command: str):
    """Ctrl-C in the middle of an operator: it ends at once, and nothing is left behind."""
    matrix = gradient(1000, 1000)
    arguments = ["--prior", str(prior_file), str(tmp_path / "long.lmgc")]
    if command == "decompress":
        frame = lmgc_torch.compress(matrix, method="lmgc", prior=prior, lane_elements=2**16)
        (tmp_path / "long.lmgc").write_bytes(bytes(frame.tolist()))  # one lane: a minute of work
    else:
        torch.save([torch.ones(10**5), gradient(9000, 1000)], tmp_path / "long.lmgc")
        arguments += ["-m", "lmgc"]
    program = (
        "import sys\n"
        "from lmgc_torch import api, cli\n"
        "for name in ('compress', 'decompress'):\n"
        "    def announced(*arguments, work=getattr(api, name), **options):\n"
        "        print('working', flush=True)\n"
        "        return work(*arguments, **options)\n"
        "    setattr(api, name, announced)\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, command, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    if command == "compress":  # a frame has been written already
        assert process.stdout.readline() == b"working\n"
        assert any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    _, messages = process.communicate(timeout=10)
    assert process.returncode == 130
    assert messages.decode() == f"lmgc {command}: interrupted\n"
    assert files(tmp_path) == {"long.lmgc"}


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_reader_that_goes_away(pt: Path, command: str):
    torch.save(gradient(1000, 1000), pt)
    arguments = [*LMGC, command, "-q", pt, "-o", "-"]
    if command == "compress":
        arguments += ["-m", "raw"]
    else:
        lmgc_torch.save(gradient(1000, 1000), pt, method="raw")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
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


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "--rm", "-"),
        ("compress", "--rm", "{pt}", "-o", "-"),
        ("compress", "--rm", "{pt}", "-o", "/dev/null"),
        ("compress", "{pt}", "-o", "{pt}"),
        ("compress", "-f", "{pt}", "-o", "{pt}"),
        ("compress", "{folder}"),
        ("compress", "{pt}", "{pt}"),
        ("compress", "{pt}", "-", "-o", "-"),
        ("compress", "-r", "{folder}", "-o", "{folder}/inner"),
        ("compress", "-r", "{folder}", "-o", "{pt}"),
        ("compress", "-r", "{folder}", "-o", "-"),
        ("compress", "-r", "{folder}", "{pt}", "-o", "{folder}-none"),
        ("compress", "--rm", "-r", "{folder}", "-o", "{folder}-none"),
        ("compress", "--rm", "-k", "{pt}"),
        ("compress", "-q", "-v", "{pt}"),
        ("compress", "--json", "{pt}", "-o", "-"),
        ("compress", "-T", "-1", "{pt}"),
        ("compress", "-T", "many", "{pt}"),
        ("compress", "{pt}", "-o", "{folder}/none/a.lmgc"),
        ("compress", "{pt}", "-o", "{folder}/none/"),
        ("compress", "{folder}/none.pt"),
        ("compress", "{pt}", "-m", "zip"),
        ("compress", "{pt}", "-m", "lmgc", "--prior", "no such prior"),
        ("compress", "{pt}", "-m", "lmgc", "--prior", "{folder}/none.pt"),
        ("compress", "{pt}", "--device", "no such device"),
        ("decompress", "{pt}"),
        ("decompress", "{folder}/none.lmgc"),
        ("test",),
        ("info", "{folder}/none.lmgc"),
        ("list", "{folder}"),
        ("completion", "fish"),
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


def test_quiet(run, pt: Path):
    assert run("compress", "-q", pt) == ("", "")
    assert run("decompress", "-q", "-f", f"{pt}.lmgc") == ("", "")


def test_progress_is_for_terminals(pt: Path):
    pytest.importorskip("rich")
    import pty

    main, other = pty.openpty()
    subprocess.run([*LMGC, "compress", pt], stderr=other, timeout=300)
    os.close(other)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(main, 4096):
            shown += piece
    os.close(main)
    assert b"compressing model.pt" in shown
    assert b"100%" in shown
    assert b"model.pt.lmgc: " in shown


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help(run, command: str):
    out, _ = run(command, "--help")
    assert f"usage: lmgc {command}" in out
    assert "Examples:" in out
    assert "Exit codes:" in out
    everything, _ = run("--help")
    assert command in everything


def test_threads(run, pt: Path):
    before = torch.get_num_threads()
    try:
        run("compress", "-T", 1, pt)
        run("test", "-T", 0, f"{pt}.lmgc")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(run, shell: str, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("shtab")
    script, _ = run("completion", shell)
    assert "export-prior" in script
    assert "--recursive" in script
    monkeypatch.setitem(sys.modules, "shtab", None)
    _, messages = run("completion", shell, code=2)
    assert "pip install" in messages


def test_bash_reads_the_completion(run, tmp_path: Path):
    pytest.importorskip("shtab")
    script, _ = run("completion", "bash")
    (tmp_path / "lmgc").write_text(script)
    program = (
        f"source {tmp_path / 'lmgc'}; COMP_WORDS=(lmgc comp); COMP_CWORD=1; _shtab_lmgc lmgc comp; "
        'echo "${COMPREPLY[@]}"'
    )
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["compress", "completion"]
