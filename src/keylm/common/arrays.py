"""The type of numpy arrays, and the target that carries no loss."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

IGNORE_INDEX = -100
"""Target of a position without loss, as in `torch.nn.functional.cross_entropy`."""
