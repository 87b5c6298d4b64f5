"""Numbers as people read them: shares, durations, memory, counts."""

from __future__ import annotations


def percent(share: float, digits: int = 1) -> str:
    """`0.4316` as `43.2%`."""
    return f"{share:.{digits}%}"


def duration(seconds: float) -> str:
    """Seconds as `2 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    # Rounded before it is divided: otherwise 119.7 s would be 1 min 60 s.
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def gib(num_bytes: int) -> str:
    """Bytes as `1.50 GiB`."""
    return f"{num_bytes / 2**30:.2f} GiB"


def short(number: int) -> str:
    """A count with three significant digits: `75.3M`."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
