"""What a check found: it is right, it differs (with the line that does), or it could not be checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["right", "differs", "unchecked"]
MAX_LINES = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One check; `lines` say what differs, or why it could not be checked."""

    name: str
    outcome: Outcome
    lines: tuple[str, ...] = ()
    detail: str = ""


@dataclass(slots=True)
class Report:
    """All checks of a model. `strength` is how much equality the model could claim, in the words of the manual."""

    findings: list[Finding] = field(default_factory=list)
    strength: str = "facts"
    in_between: tuple[str, ...] = ()
    """Types that the values had since they were recorded, by the file's own account: of tensors with another digest,
    where the present type does not say as much."""

    def add(self, name: str, differences: list[str], *, detail: str = "") -> None:
        """A check that ran."""
        shown = differences[:MAX_LINES]
        if len(differences) > MAX_LINES:
            shown.append(f"and {len(differences) - MAX_LINES} more")
        self.findings.append(Finding(name, "differs" if differences else "right", tuple(shown), detail))

    def could_not(self, name: str, why: str) -> None:
        self.findings.append(Finding(name, "unchecked", (why,)))

    @property
    def passed(self) -> bool:
        """Everything was checked and is right."""
        return bool(self.findings) and all(finding.outcome == "right" for finding in self.findings)

    def document(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "strength": self.strength,
            "in_between": list(self.in_between),
            "checks": [asdict(finding) for finding in self.findings],
        }


def shown(value: object) -> str:
    """A value of a file in a line."""
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."
