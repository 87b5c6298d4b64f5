"""Array types, and the target value that carries no loss."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


IGNORE_INDEX = -100
"""Target of a position that is not learned from."""
