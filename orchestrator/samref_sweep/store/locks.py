"""Locks on files and folders, which end with the process that holds them.

They hold on one machine, and between machines where the file system passes them on (NFS 4, Lustre with `flock`). On a
file system without locks all succeed: two drivers may then do a stage twice, of which one result stays.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_LOG = logging.getLogger(__name__)
TRY_SECONDS = 0.2
EXCLUSIVE_SECONDS = 30.0


@contextmanager
def held(folders: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of folders, made where there are none, for the block; waits while other processes hold one."""
    with ExitStack() as stack:
        for folder in sorted(folders):  # in one order, so that two cannot wait for each other
            while not stack.enter_context(lock(folder, wait=True)):
                folder.mkdir(parents=True, exist_ok=True)  # there was none, or who held it removed it
        yield


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a folder's lock for the block, and tell whether it is held: a lock of what is gone keeps nobody away.

    Where another process holds it, that one is waited for or, without `wait`, left alone.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        told = False
        while not (locked := _lock(descriptor)) and wait:
            if not told:
                _LOG.warning("%s: another process works on it; waiting for its end", folder.name)
            told = True
            time.sleep(TRY_SECONDS)
        yield locked and _is_open(descriptor, folder)
    finally:
        os.close(descriptor)


def _is_open(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


@contextmanager
def exclusive(path: Path, token: str, *, give_up: threading.Event) -> Iterator[bool]:
    """Hold a file's lock for the block, and tell whether nobody with another token held it since.

    Raises TimeoutError: another process held it still, EXCLUSIVE_SECONDS after `give_up` was set.
    """
    with path.open("a+") as file:
        until: float | None = None
        while not _lock(file.fileno()):
            if until is None and give_up.is_set():
                until = time.monotonic() + EXCLUSIVE_SECONDS
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"another process holds {file.name}")
            time.sleep(TRY_SECONDS)
        file.seek(0)
        undisturbed = file.read() == token
        if not undisturbed:
            file.truncate(0)
            file.write(token)
            file.flush()
        yield undisturbed


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
