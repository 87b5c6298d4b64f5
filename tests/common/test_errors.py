"""Whatever goes wrong becomes one sentence with an exit code."""

import errno
import os

import numpy as np
import pytest
from safetensors import SafetensorError

from keylm.common.errors import KeyLMError, UserError, as_keylm_error


def raised(action):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        action()
    return as_keylm_error(caught.value)


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        *((errno.EACCES, 2), (errno.ENOENT, 2), (errno.ENOTDIR, 2), (errno.EEXIST, 2), (errno.EROFS, 2)),
        *((errno.ENOSPC, 1), (errno.EIO, 1)),
    ],
)
def test_what_the_system_refuses_names_the_file(number, exit_code):
    error = as_keylm_error(OSError(number, os.strerror(number), "runs/x"))
    assert error.exit_code == exit_code
    assert "runs/x" in str(error)


def test_a_full_disk_is_a_full_disk():
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        error = raised(lambda: full.write(b"text"))
    assert error.exit_code == 1
    assert "the disk is full" in str(error)


def test_numpy_on_a_full_disk(tmp_path):
    error = raised(lambda: np.zeros(10_000).tofile("/dev/full"))
    assert error.exit_code == 1
    assert "full" in str(error)


def test_safetensors_on_a_full_disk():
    error = as_keylm_error(SafetensorError(f"Error while serializing: {os.strerror(errno.ENOSPC)} (os error 28)"))
    assert error.exit_code == 1
    assert "the disk is full" in str(error)


@pytest.mark.parametrize("error", [ValueError("a\nb"), KeyError("x"), RuntimeError(), RecursionError("deep")])
def test_what_nobody_expected_is_one_line_with_its_type(error):
    sentence = str(as_keylm_error(error))
    assert type(error).__name__ in sentence
    assert "--debug" in sentence
    assert "\n" not in sentence
    assert as_keylm_error(error).exit_code == 1


def test_memory_and_our_own_errors():
    assert "memory" in str(as_keylm_error(MemoryError()))
    own = UserError("the recipe")
    assert as_keylm_error(own) is own
    assert isinstance(own, KeyLMError)
