"""Lets lxml and nftables be imported without modules that they do not need for what cgw does.

lxml.etree (4.9 of Debian 12, 5.4 of Debian 13) imports

- ``inspect``, and with it ``ast``, ``dis`` and ``tokenize``: for one function, which it calls only
  if a program parses into a target of its own (parsertarget.pxi). Cython, in which lxml is
  written, also replaces ``inspect.isgenerator`` with a function that knows Cython's generators.
- ``gzip``: for compressed output (serializer.pxi).

nftables imports ``json``, and with it ``re`` and ``enum``: for commands in JSON.

These take as long as the start of the interpreter. So a stand-in for each is in ``sys.modules``
during the import. Its functions are as good as the real ones: when they are called, they import
the real module. Any other name also comes from the real module, so a later version that asks for
more gets it, and only the time is lost.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Module -> the functions that are asked for during the imports.
_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "inspect": ("getfullargspec", "isgenerator"),
    "gzip": ("GzipFile",),
    "json": (),
}


class StandIns:
    """The stand-ins, for ``with``. A module that is loaded already has none.

    If lxml itself is loaded, there are none at all: another thread could be importing a module.
    """

    def __enter__(self) -> None:
        wanted = () if "lxml.etree" in sys.modules else _FUNCTIONS
        self._made = [_StandIn(name) for name in wanted if name not in sys.modules]
        for made in self._made:
            sys.modules[made.__name__] = made

    def __exit__(self, *_: object) -> None:
        for made in self._made:
            made.leave()


class _StandIn(ModuleType):
    """Stands for one module."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        for function in _FUNCTIONS[name]:
            setattr(self, function, self._later(function))

    def leave(self) -> None:
        """Let the next import of this name find the real module."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def _later(self, function: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return getattr(self._real(), function)(*arguments, **named)

        return call

    def _real(self) -> ModuleType:
        self.leave()
        return __import__(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these, and does without them
            raise AttributeError(name)
        return getattr(self._real(), name)
