"""A ``NamedTuple`` like that of ``typing``, whose import takes 8 ms.

All values of a hook call are of this kind. A type checker sees ``typing.NamedTuple``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    from collections import namedtuple

    class _Meta(type):
        """Builds a class from the fields and the other members of a class body."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:  # NamedTuple itself
                return super().__new__(cls, name, bases, body)
            fields = body.get("__annotations__", {})
            defaults = [body.pop(field) for field in fields if field in body]
            plain = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024
            return type(name, (plain,), {"__slots__": (), **body})

    class NamedTuple(metaclass=_Meta):
        """The base class of the core's values: ``class Port(NamedTuple): number: int``."""


__all__ = ["NamedTuple"]
