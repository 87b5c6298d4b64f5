"""How far a reader is, and what it found out on the way."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Reading:
    """Kept up to date by whoever reads a source, for whoever shows or records it."""

    done: float = 0
    """How much of the source has been read, in the reader's own unit."""
    total: float | None = None
    """How much there is, in the same unit; `None` as long as nobody knows."""
    facts: dict[str, str] = field(default_factory=dict)
    """What is worth keeping in the manifest, such as the commit that a revision stood for."""

    @property
    def share(self) -> float | None:
        """Share of the source that has been read, if it is known."""
        return min(self.done / self.total, 1.0) if self.total else None
