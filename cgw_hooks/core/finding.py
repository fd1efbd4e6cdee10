"""What ``cgw doctor`` finds: the verdict of a check, with the problem if there is one."""

from __future__ import annotations

from cgw_hooks.core.enumeration import Enum
from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgw_hooks.core.problem import Problem


class Verdict(Enum):
    """The verdicts, the worst one first."""

    #: Clients are kept out, or what cgw needs does not work.
    FAIL = "fail"
    #: Some clients may be kept out, or something will not work later.
    WARN = "warn"
    #: This cannot be found out.
    UNKNOWN = "unknown"
    PASS = "pass"  # noqa: S105  (no password)


class Finding(NamedTuple):
    """One verdict of one check."""

    verdict: Verdict
    #: None: the check has passed.
    problem: Problem | None = None
    #: The name of the check; the doctor adds it.
    check: str = ""


def fail(problem: Problem) -> Finding:
    """Return the finding of a fault."""
    return Finding(Verdict.FAIL, problem)


def warn(problem: Problem) -> Finding:
    """Return the finding of a possible or future fault."""
    return Finding(Verdict.WARN, problem)


def unknown(problem: Problem) -> Finding:
    """Return the finding of something that cannot be found out."""
    return Finding(Verdict.UNKNOWN, problem)
