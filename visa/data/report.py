"""What checking an object of a data set finds."""

from dataclasses import dataclass, field


@dataclass
class ObjectReport:
    """What was found for one object: image counts, errors (unusable or contradictory), warnings (odd but usable)."""

    object: str
    absent: bool = False
    normal: int = 0
    anomaly: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the object is there and without errors."""
        return not self.absent and not self.errors
