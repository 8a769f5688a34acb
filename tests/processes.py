"""Runs a function in a process of its own that may limit itself, or be killed."""

from __future__ import annotations

import faulthandler
import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT = 300.0  # seconds; only a hang should ever take that long

# A server that has imported torch forks each process: that takes a tenth of a second, not several.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch.distributed.fsdp", "lmgc_torch", "pytest"])


class ProcessError(AssertionError):
    """The function raised, or its process ended without a result or took too long."""


class Child:
    """A process that calls `function(*args)`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        """Starts it.

        Args:
            function: A function at the top of a module; what it returns can be pickled.
            args: They are pickled.
        """
        self._answer, theirs = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=_work, args=(theirs, function, args), daemon=True)
        self.process.start()
        theirs.close()

    def result(self) -> Any:
        """Waits for what the function returns.

        Raises:
            ProcessError: There is nothing to wait for.
        """
        try:
            if not self._answer.poll(TIMEOUT):
                raise ProcessError("still at work when the time was over")
            try:
                good, value = pickle.loads(self._answer.recv_bytes())
            except EOFError:
                self.process.join()
                good, value = False, f"ended with {self.process.exitcode}, without a result"
        finally:
            self.kill()
        if not good:
            raise ProcessError(value)
        return value

    def kill(self) -> None:
        """Ends it at once, wherever it is, and waits until it is gone."""
        self.process.kill()
        self.process.join()


def in_child(function: Callable[..., Any], *args: Any) -> Any:
    """Calls `function(*args)` in a process of its own, and returns what it returns."""
    return Child(function, *args).result()


def answer(connection: Connection, function: Callable[[], Any], timeout: float = TIMEOUT) -> None:
    """Sends what `function()` returns, or how it failed."""
    faulthandler.dump_traceback_later(timeout, exit=True)  # shows where it hangs
    try:
        data = pickle.dumps((True, function()))
    except BaseException:
        data = pickle.dumps((False, traceback.format_exc()))
    # Pickled here: a queue would hand over tensors by file descriptors that end with this process.
    connection.send_bytes(data)
    connection.close()


def _work(connection: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    answer(connection, lambda: function(*args))
