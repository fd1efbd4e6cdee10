"""Who has which listening port: an index of the records, kept as symbolic links.

``claims/tcp-2202/0.0.0.0 -> qemu-<uuid>``. To look a port up costs the same
however many others are published. A link that its guest's record does not confirm is
what a crash left, and is nobody's claim. Hold the node's lock for all of these.
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cgw_hooks.host.state.directory import make_safe_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cgw_hooks.core.published_port import Claim


class Claims:
    """The claims in ``directory``."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.join(directory, "claims")

    def holders(self, claim: Claim) -> Iterator[tuple[Claim, str]]:
        """The claims on the same packets, each with the key of the guest that holds it."""
        folder = self._folder(claim)
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for name in names:
            held = claim._replace(address=ip_address(name))
            if held.overlaps(claim):
                yield held, os.readlink(os.path.join(folder, name))

    def take(self, key: str, claims: Iterable[Claim]) -> None:
        """Write claims down for a guest, over what a crash may have left there."""
        make_safe_directory(self.directory)
        for claim in claims:
            link = self._link(claim)
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(link), 0o700)
            try:
                os.symlink(key, link)
            except FileExistsError:
                if os.readlink(link) != key:
                    os.unlink(link)
                    os.symlink(key, link)

    def give_up(self, key: str, claims: Iterable[Claim]) -> None:
        """Remove a guest's claims; those that are another's by now stay."""
        for claim in claims:
            link = self._link(claim)
            with suppress(FileNotFoundError):
                if os.readlink(link) == key:
                    os.unlink(link)
            with suppress(OSError):  # not empty, or not there
                os.rmdir(os.path.dirname(link))

    def rivals(
        self, key: str, claims: Iterable[Claim], is_held: Callable[[str, Claim], bool]
    ) -> dict[str, Claim]:
        """The keys of others that really hold these claims, each with the first of them."""
        rivals: dict[str, Claim] = {}
        for claim in claims:
            for held, holder in self.holders(claim):
                if holder != key and holder not in rivals and is_held(holder, held):
                    rivals[holder] = claim
        return rivals

    def replace(self, owners: Mapping[Claim, str]) -> None:
        """Make these the claims, each with its owner's key; only what differs is written."""
        wanted = {self._link(claim) for claim in owners}
        for folder, _, names in os.walk(self.directory, topdown=False):
            for name in names:
                link = os.path.join(folder, name)
                if link not in wanted or not os.path.islink(link):
                    os.unlink(link)
            with suppress(OSError):  # not empty
                os.rmdir(folder)
        for claim, key in owners.items():
            self.take(key, [claim])

    def _link(self, claim: Claim) -> str:
        return os.path.join(self._folder(claim), str(claim.address))

    def _folder(self, claim: Claim) -> str:
        return os.path.join(self.directory, f"{claim.protocol}-{claim.port}")
