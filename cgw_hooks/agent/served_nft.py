"""The ruleset for the thread that serves hooks: it drops a call that its hook gave up.

The check comes before each transaction, and (``host/state/lock.py``) after each wait for the lock,
since a stopped or slow agent may continue long after the hook has carried out the call itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgw_hooks.host.nft import Nft

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[], None]


class ServedNft(Nft):
    """libnftables; ``check`` raises an exception if the call is given up."""

    def __init__(self, check: Check) -> None:
        super().__init__()
        self._check = check

    def apply(self, text: str) -> None:
        """Carry out one transaction, unless the call is given up."""
        self._check()
        super().apply(text)
