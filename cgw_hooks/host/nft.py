"""nftables, through libnftables in this process. Only this module changes the ruleset.

It uses text, not JSON: nft 1.0.6 makes a set of a JSON map with concatenated data, and a rule
that uses this map crashes libnftables.
"""

from __future__ import annotations

from cgw_hooks.errors import RulesetError, quoted
from cgw_hooks.host.stand_ins import StandIns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: libnftables repeats the whole command in its message; the first line is enough.
_MESSAGE_LENGTH = 200


class Nft:
    """A handle of libnftables, made at its first use (this takes 5 ms)."""

    def __init__(self) -> None:
        self._context: Any = None

    def apply(self, text: str) -> None:
        """Carry out one transaction completely, or raise ``RulesetError`` and change nothing."""
        self._run(text)

    def try_out(self, text: str) -> None:
        """Let the kernel check one transaction, and change nothing. Raises ``RulesetError``."""
        nft = self._nft()
        nft.set_dry_run(True)
        try:
            self._run(text)
        finally:
            self._context = None

    def list_table(self, table: str) -> str:
        """Return ``nft -n list table``. Raises ``RulesetError`` if there is no such table."""
        nft = self._nft()
        nft.set_numeric_proto_output(True)
        nft.set_stateless_output(True)
        try:
            return self._run(f"list table {table}")
        finally:
            # A handle keeps what it has listed: 60 MB for 50,000 elements.
            self._context = None

    def read(self, text: str) -> str:
        """Return a listing with handles. Raises ``RulesetError`` if there is no such object."""
        nft = self._nft()
        nft.set_handle_output(True)
        try:
            return self._run(text)
        finally:
            nft.set_handle_output(False)

    def list_json(self, text: str) -> dict[str, Any]:
        """Return a listing as libnftables-json(5) has it, with all elements.

        Raises ``RulesetError`` if there is no such object.
        """
        import json  # never in a hook call

        nft = self._nft()
        nft.set_json_output(True)
        try:
            found: dict[str, Any] = json.loads(self._run(text) or "{}")
        finally:
            # A handle keeps what it has listed.
            self._context = None
        return found

    def close(self) -> None:
        """Close the handle's socket. The kernel then deletes the tables that it owns."""
        self._context = None

    def _run(self, text: str) -> str:
        status, output, error = self._nft().cmd(text)
        if status != 0:
            first = next(iter(error.strip().splitlines()), "no reason given")
            raise RulesetError(
                "nftables",
                f"the change was refused: {quoted(first, _MESSAGE_LENGTH)}",
                "see: cgw status",
            )
        return str(output)

    def _nft(self) -> Any:
        if self._context is None:
            try:
                with StandIns():
                    import nftables

                self._context = nftables.Nftables()
            except (ImportError, OSError) as error:
                raise RulesetError(
                    "nftables",
                    f"the binding cannot be loaded ({error})",
                    "install it: apt install python3-nftables",
                ) from error
        return self._context
