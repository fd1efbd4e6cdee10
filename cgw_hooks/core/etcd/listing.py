"""Lists many keys, page by page: how large the next page is, and when the list is complete."""

from __future__ import annotations

from cgw_hooks.core.etcd.questions import Question
from cgw_hooks.core.etcd.values import Found, key_range
from cgw_hooks.errors import RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PAGE = 500
#: Characters of all values that one list may have.
_MOST_LISTED = 64 << 20


class Listing:
    """All keys with a prefix. The first page decides of which revision."""

    def __init__(self, prefix: str) -> None:
        self.found = Found(0, "", [])
        self.is_complete = False
        self._prefix = prefix
        self._limit = _PAGE
        self._size = 0

    def next_page(self) -> Question[tuple[Found, bool]]:
        """Ask for the next page, and whether another one follows it."""
        after = self.found.values[-1].key if self.found.values else ""
        at = {"limit": self._limit, "revision": str(self.found.revision)}
        return Question("/v3/kv/range", {**key_range(self._prefix, after), **at}, _page)

    def add(self, page: Found, *, is_more: bool) -> None:
        """Add the next page. Raises ``RegistryError`` if the values are too long altogether."""
        self.found = Found(
            self.found.revision or page.revision, page.cluster, self.found.values + page.values
        )
        self.is_complete = not is_more
        self._limit = min(self._limit * 2, _PAGE)
        self._size += sum(len(value.value or "") for value in page.values)
        if self._size > _MOST_LISTED:
            raise RegistryError(self._prefix, f"its values have over {_MOST_LISTED >> 20} MiB")

    def shorten(self) -> bool:
        """Make the next page shorter; return whether that is possible.

        A few huge values must not keep the others away.
        """
        is_possible = self._limit > 1
        self._limit = max(self._limit // 8, 1)
        return is_possible


def _page(answer: dict[str, Any]) -> tuple[Found, bool]:
    return Found.of(answer), bool(answer.get("more"))
