"""Which exceptions are the stage's own, and which the machine's; and one that ends no watch."""

import errno
import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from samref_sweep.execution.unit import reason
from samref_sweep.failures import REMEMBERED, FailureKind, classify
from samref_sweep.repeating import every


def open_too_many() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
    try:
        while True:
            files.append(Path("/dev/null").open())  # noqa: SIM115
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in files:
            file.close()


def import_what_a_folder_has_not() -> None:
    import json.nothing  # type: ignore[import-not-found]  # noqa: F401


def raises(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (open_too_many, "machine"),
        (import_what_a_folder_has_not, "machine"),
        (raises(RuntimeError("can't start new thread")), "machine"),
        (raises(RuntimeError("unable to open shared memory object </torch_1> in read-write mode")), "machine"),
        (raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/x")), "machine"),
        (raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/x")), "storage"),
        (raises(RuntimeError("basic_ios::clear: No space left on device")), "storage"),
        (raises(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), "out_of_memory"),
        (raises(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x")), "error"),
        (raises(RuntimeError("out of resource: shared memory, Required: 300000")), "error"),  # Triton: ever again
    ],
)
def test_a_limit_of_the_machine_is_not_the_stage_s_fault(cause: Callable[[], None], kind: FailureKind) -> None:
    with pytest.raises(Exception) as caught:
        cause()
    assert classify(caught.value) == kind
    assert (kind in REMEMBERED) == (kind == "error")


def test_a_reason_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "caf\udce9").read_bytes()
    assert "caf\\udce9" in reason(caught.value).encode().decode()


def test_a_package_that_lacks_something_is_named_with_its_folder() -> None:
    with pytest.raises(ImportError) as caught:
        import_what_a_folder_has_not()
    folder = Path(sys.modules["json"].__file__ or "").parent
    assert f"the package is the one in {folder}: rename that folder" in reason(caught.value)


def test_a_look_that_fails_once_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[int] = []
    enough = threading.Event()

    def look() -> None:
        looks.append(len(looks))
        if len(looks) < 3:
            raise OSError("the link is cut")
        enough.set()

    with every(0.01, look, "watch"):
        assert enough.wait(30)
    assert [record.message for record in caplog.records] == ["watch: OSError: the link is cut"]
