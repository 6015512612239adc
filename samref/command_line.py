"""What all commands have in common: output that ends no work, and what the machine refuses in one line.

Standard output may be a pipe that nobody reads any more, a full disk or a terminal that was closed; its encoding may
know neither θ nor the bytes of a file's name. None of that is a reason to stop.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import functools
import io
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from samref.errors import UserError, masked

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BAD_INPUT, OUTPUT_LOST, INTERRUPTED = 2, 74, 130
"""Exit codes: a person's or the machine's mistake, in one line; all went well, but standard output could not be written
(a full disk; EX_IOERR of sysexits.h), where a reader that went away, as `head` does, loses nothing that it wanted; and
ended by a signal, or by what is like one."""
GONE = (errno.EPIPE, errno.EIO)
"""What writing to a pipe without a reader gives, and to a terminal that was closed."""
Command = Callable[..., int]


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line without secrets, and that takes no empty argument.

    An empty one is a shell's variable that is not set; as a path it would be the working folder.
    """

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string:
            raise argparse.ArgumentError(action, "it is empty; is a variable of the shell not set?")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        """End the process with what is wrong; `--help` shows the rest."""
        self.exit(BAD_INPUT, f"{self.prog}: error: {UserError(message)}; {self.prog} --help lists what there is\n")


def command(main: Command) -> Command:
    """Decorate a command, which takes its arguments and gives its exit code, with what this module promises."""

    @functools.wraps(main)
    def carried_out(arguments: Sequence[str] | None = None) -> int:
        with _lasting("stdout") as out, _lasting("stderr"):
            exits = False
            try:
                code = main(arguments)
            except SystemExit as end:  # argparse: --help, --schema, a mistake
                code, exits = end.code if isinstance(end.code, int) else 0, True
            except OSError as error:
                print(f"error: {refusal(error)}", file=sys.stderr)
                code = BAD_INPUT
            if out is not None and (lost := out.flushed_without()):
                print(f"warning: standard output could not be written: {lost.strerror}", file=sys.stderr)
                code = code or OUTPUT_LOST
        if exits:
            raise SystemExit(code)
        if arguments is None and Path(sys.argv[0]).name.startswith("samref-"):
            atexit.register(_end, code)
        return code

    return carried_out


def _end(code: int) -> None:
    """End a command's own process, after all else that is to be done at its exit.

    Python would then look through half a million objects: ten of the seconds, on a busy machine, that a batch system
    gives between its SIGTERM and its kill.
    """
    atexit.unregister(_end)
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def refusal(error: OSError) -> str:
    """What the system refused, in one line: the file, why, and what to do."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return "the working folder was removed; change into one that is there"
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += "; what is done is kept: make room, and the same command goes on"
    return masked(" ".join(text.encode(errors="backslashreplace").decode().split()))


class _Lasting(io.RawIOBase):
    """Writes to a descriptor until that fails; from then on all is thrown away, also what libraries write there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text: TextIO | None = None
        self.lost: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # a terminal or pipe that another program set so
            select.select([], [self._descriptor], [])
            return self.write(data)
        except OSError as error:
            self.lost = error
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), self._descriptor)
            return memoryview(data).nbytes

    def flushed_without(self) -> OSError | None:
        """Write what is left; why something was lost that somebody would have read."""
        if self.text is not None:
            self.text.flush()
        return self.lost if self.lost and self.lost.errno not in GONE else None


@contextmanager
def _lasting(name: str) -> Iterator[_Lasting | None]:
    """For the block, sys.stdout or sys.stderr cannot fail; gives what tells whether it would have.

    One that is not the process's own, such as a test's, is left as it is.
    """
    before: TextIO | None = getattr(sys, name)
    if before is None:  # closed by who called; what is opened first would take its descriptor
        before = open(os.open(os.devnull, os.O_RDWR), "w")  # noqa: SIM115, PTH123
    elif before is not getattr(sys, f"__{name}__"):
        yield None
        return
    before.flush()
    raw = _Lasting(before.fileno())
    raw.text = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=before.encoding, errors="backslashreplace", line_buffering=True
    )
    setattr(sys, name, raw.text)
    try:
        yield raw
    finally:
        raw.text.flush()
        setattr(sys, name, before)
