"""A ``NamedTuple`` like that of ``typing``, which takes 8 ms to import.

All values of a hook call are of this kind, and ``collections.namedtuple`` takes 0.1 ms or more for
each class: it compiles the class's ``__new__`` from text. Here the functions of ``_NEW`` are
compiled already, and only the names of their parameters are replaced. A type checker sees
``typing.NamedTuple``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    from collections import _tuplegetter as field_getter

    _new = tuple.__new__
    #: Index: the number of fields. A class may have at most as many as the last one has.
    _NEW = (
        lambda cls: _new(cls),  # noqa: PLW0108  (its code is taken)
        lambda cls, a: _new(cls, (a,)),
        lambda cls, a, b: _new(cls, (a, b)),
        lambda cls, a, b, c: _new(cls, (a, b, c)),
        lambda cls, a, b, c, d: _new(cls, (a, b, c, d)),
        lambda cls, a, b, c, d, e: _new(cls, (a, b, c, d, e)),
        lambda cls, a, b, c, d, e, f: _new(cls, (a, b, c, d, e, f)),
        lambda cls, a, b, c, d, e, f, g: _new(cls, (a, b, c, d, e, f, g)),
        lambda cls, a, b, c, d, e, f, g, h: _new(cls, (a, b, c, d, e, f, g, h)),
        lambda cls, a, b, c, d, e, f, g, h, i: _new(cls, (a, b, c, d, e, f, g, h, i)),
        lambda cls, a, b, c, d, e, f, g, h, i, j: _new(cls, (a, b, c, d, e, f, g, h, i, j)),
    )

    class _Meta(type):
        """Builds a class from the fields and the other members of a class body."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:  # NamedTuple itself
                return super().__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", {}))
            defaults = {field: body.pop(field) for field in fields if field in body}
            members = {field: field_getter(i, None) for i, field in enumerate(fields)}
            members["__new__"] = _constructor(name, fields, tuple(defaults.values()))
            members.update(
                __slots__=(), __match_args__=fields, _fields=fields, _field_defaults=defaults
            )
            return type(name, (_Tuple,), {**members, **body})

    def _constructor(name: str, fields: tuple[str, ...], defaults: tuple[object, ...]) -> Any:
        template = _NEW[len(fields)]
        code = template.__code__.replace(
            co_varnames=("_cls", *fields), co_name="__new__", co_qualname=f"{name}.__new__"
        )
        return type(template)(code, globals(), "__new__", defaults)

    class _Tuple(tuple):
        """What all these classes have in common; see ``collections.namedtuple``."""

        __slots__ = ()

        @classmethod
        def _make(cls, values: Any) -> Any:
            made = _new(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **changes: Any) -> Any:
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return made

        __replace__ = _replace  # copy.replace(), since Python 3.13

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            values = ", ".join(f"{k}={v!r}" for k, v in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({values})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    class NamedTuple(metaclass=_Meta):
        """The base class of the core's values: ``class Port(NamedTuple): number: int``."""


__all__ = ["NamedTuple"]
