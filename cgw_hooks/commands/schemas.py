"""The schemas of what other programs read and write; they are files of the package."""

from __future__ import annotations

from pathlib import Path

from cgw_hooks.core.parse import annotation_schema
from cgw_hooks.errors import CgwError, quoted

_FOLDER = Path(__file__).resolve().parent.parent / "schemas"
#: RELAX NG, of ``<publish>``.
ANNOTATION = _FOLDER / "annotation.rng"
#: JSON Schema (2020-12), of ``cgw status --json``.
STATUS = _FOLDER / "status.json"
#: JSON Schema (2020-12), of ``cgw doctor --json``.
DOCTOR = _FOLDER / "doctor.json"
#: JSON Schema (2020-12), of ``cgw status --cluster --json``.
CLUSTER = _FOLDER / "cluster.json"


def refuse_difference(name: str, xml: bytes) -> None:
    """Raise ``CgwError`` if the schema refuses an annotation that the parser has accepted.

    Then a person's editor would call an annotation wrong that cgw publishes.
    """
    why = annotation_schema.complaint(name, xml, ANNOTATION.read_bytes())
    if why:
        raise CgwError(
            str(ANNOTATION),
            f"it refuses the annotation of guest {quoted(name)}, which is valid: {quoted(why)}",
            "report this: it is an error of cgw",
        )
