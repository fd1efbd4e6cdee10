"""``NamedTuple`` as ``typing`` has it, without the 8 ms that importing ``typing`` takes.

Every value of a hook call is one of these. A type checker sees ``typing.NamedTuple``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    from collections import namedtuple

    class _Meta(type):
        """Makes a class of a named tuple's fields and of what else its body holds."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:  # NamedTuple itself
                return super().__new__(cls, name, bases, body)
            fields = body.get("__annotations__", {})
            defaults = [body.pop(field) for field in fields if field in body]
            plain = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024
            return type(name, (plain,), {"__slots__": (), **body})

    class NamedTuple(metaclass=_Meta):
        """Base of the values of the core: ``class Port(NamedTuple): number: int``."""


__all__ = ["NamedTuple"]
