"""nftables, through libnftables in this process: the one place that changes the ruleset.

Text, not JSON: nft 1.0.6 makes a set of a JSON map with concatenated data, and a
rule that uses it crashes libnftables.
"""

from __future__ import annotations

from cgw_hooks.errors import RulesetError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: libnftables repeats the whole command line in its message; the first line says it all.
_MESSAGE_LENGTH = 200


class Nft:
    """A handle of libnftables, made when it is first needed (the import costs 10 ms)."""

    def __init__(self) -> None:
        self._context: Any = None

    def apply(self, text: str) -> None:
        """Carry out one transaction, whole or not at all. Raises ``RulesetError``."""
        self._run(text)

    def list_table(self, table: str) -> str:
        """A table as ``nft -n list table`` prints it. Raises ``RulesetError`` without the table."""
        nft = self._nft()
        nft.set_numeric_proto_output(True)
        nft.set_stateless_output(True)
        try:
            return self._run(f"list table {table}")
        finally:
            nft.set_numeric_proto_output(False)
            nft.set_stateless_output(False)

    def read(self, text: str) -> str:
        """What a listing command says, with handles. Raises ``RulesetError`` without the object."""
        nft = self._nft()
        nft.set_handle_output(True)
        try:
            return self._run(text)
        finally:
            nft.set_handle_output(False)

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
                import nftables

                self._context = nftables.Nftables()
            except (ImportError, OSError) as error:
                raise RulesetError(
                    "nftables",
                    f"the binding cannot be loaded ({error})",
                    "install it: apt install python3-nftables",
                ) from error
        return self._context
