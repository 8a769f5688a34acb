"""Links of a chosen rate between processes of one machine: network namespaces around a switch.

    with links(ranks=2, mbit=100) as ports:
        subprocess.Popen([*ports[0].command, "python", ...])

Every rank has a namespace with one interface; a bridge in one namespace more joins them. Both ends
of each cable are shaped by a token bucket, so that a rank sends and receives at the rate, as behind
the port of a switch. All devices lie in the namespaces and vanish with them. It takes Linux, root
and iproute2; ``obstacle`` tells what is missing, and ``loopback`` is what remains then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

PREFIX = "lmgc-ddp-"  # of every namespace: PREFIX + process number + "-" + rank or "switch"
INTERFACE = "link0"
ADDRESS = "10.77.0."  # nothing outside the namespaces sees it
LATENCY = "50ms"  # the longest that a packet waits in a queue before it is dropped
BURST_SECONDS = 0.004  # of the rate, that a link may send at once after a rest
LEAST_BURST = 128 * 1024  # bytes; a packet of 64 KiB must fit


class Port(NamedTuple):
    """What a rank needs to know of its end of the network."""

    command: tuple[str, ...]  # what to put before a command line so that it runs there
    interface: str
    address: str


def obstacle() -> str | None:
    """Returns why no namespaces can be made here, None if they can."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "iproute2 (ip, tc) is missing"
    remove_leftovers()
    name = f"{PREFIX}{os.getpid()}-probe"
    try:
        _run("ip", "netns", "add", name)
        try:
            _run(
                "ip", "-n", name, "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"
            )
            _run("ip", "-n", name, "link", "add", "probe2", "type", "bridge")
            _shape(name, "probe0", 100)
        finally:
            _delete(name)
    except RuntimeError as error:
        return str(error)
    return None


@contextmanager
def links(ranks: int, mbit: float) -> Iterator[list[Port]]:
    """Makes a network of so many ranks, each of which sends and receives ``mbit`` Mbit/s.

    Its processes have to end before the context does.

    Raises:
        RuntimeError: with the message of the command that failed.
    """
    remove_leftovers()
    own = f"{PREFIX}{os.getpid()}-"
    switch, spaces = f"{own}switch", [f"{own}{rank}" for rank in range(ranks)]
    try:
        for space in (switch, *spaces):
            _delete(space)  # a process of the same number may have left it
            _run("ip", "netns", "add", space)
        _run("ip", "-n", switch, "link", "add", "bridge0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge0", "up")
        for rank, space in enumerate(spaces):
            _connect(switch, space, rank, mbit)
        yield [
            Port(("ip", "netns", "exec", space), INTERFACE, f"{ADDRESS}{rank + 1}")
            for rank, space in enumerate(spaces)
        ]
    finally:
        for space in (*spaces, switch):
            _delete(space)


def loopback(ranks: int) -> list[Port]:
    """Returns ports on the machine's own loopback interface, whose rate has no limit."""
    return [Port((), "lo", "127.0.0.1")] * ranks


def _connect(switch: str, space: str, rank: int, mbit: float) -> None:
    port = f"port{rank}"
    cable = ("link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", space)
    _run("ip", "-n", switch, *cable)
    _run("ip", "-n", switch, "link", "set", port, "master", "bridge0", "up")
    _run("ip", "-n", space, "address", "add", f"{ADDRESS}{rank + 1}/24", "dev", INTERFACE)
    for interface in ("lo", INTERFACE):
        _run("ip", "-n", space, "link", "set", interface, "up")
    _shape(switch, port, mbit)
    _shape(space, INTERFACE, mbit)


def _shape(space: str, interface: str, mbit: float) -> None:
    """Limits what an interface sends."""
    burst = max(LEAST_BURST, int(BURST_SECONDS * mbit * 1e6 / 8))
    bucket = ("rate", f"{mbit:g}mbit", "burst", str(burst), "latency", LATENCY)
    _run("tc", "-n", space, "qdisc", "add", "dev", interface, "root", "tbf", *bucket)


def remove_leftovers() -> list[str]:
    """Deletes the namespaces of runs whose process no longer exists, and returns their names."""
    folder = "/run/netns"
    found = os.listdir(folder) if os.path.isdir(folder) else []
    dead = [
        name
        for name in found
        if name.startswith(PREFIX) and not _lives(name.removeprefix(PREFIX).split("-")[0])
    ]
    for name in dead:
        _delete(name)
    return dead


def _lives(process: str) -> bool:
    return os.path.isdir(f"/proc/{process}")


def _delete(space: str) -> None:
    """Deletes a namespace and all that lies in it; one that does not exist is no error."""
    subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


def _run(*command: str) -> None:
    """Runs a command.

    Raises:
        RuntimeError: with its message, if it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}`: {done.stderr.strip()}")
