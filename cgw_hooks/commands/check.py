"""``cgw check [FILE or GUEST]``: would this be published? Applies nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cgw_hooks.core.parse import domain_scan
from cgw_hooks.core.parse.config_toml import parse_config
from cgw_hooks.errors import CgwError, InvalidAnnotation, InvalidConfig, PortConflict, quoted
from cgw_hooks.host import libvirt_api
from cgw_hooks.sources.libvirt import read_guest

if TYPE_CHECKING:
    from cgw_hooks.core.guest import Guest
    from cgw_hooks.node.publisher import Publisher


def check_guest(publisher: Publisher, subject: str) -> Guest:
    """The guest with what it would publish here, its conflicts with others included.

    ``subject``: a file with domain XML or the annotation alone, "-" for standard
    input, or a guest's name. Raises ``CgwError``.
    """
    driver, name, xml = _definition(subject)
    guest = read_guest(publisher.config, driver, name, xml)
    if guest is None:
        raise InvalidAnnotation(f"guest {quoted(name)}: <metadata>: it publishes nothing")
    conflict = publisher.owners.conflict(guest)
    if conflict:
        raise PortConflict(conflict)
    return guest


def check_config_file(path: str) -> None:
    """Whether a config file other than the node's own could be used. Raises ``InvalidConfig``."""
    try:
        parse_config(_read_file(path).decode("utf-8"))
    except (InvalidConfig, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from None


def is_config(subject: str) -> bool:
    """Whether the subject is a config file, by its name."""
    return subject.endswith(".toml")


def _definition(subject: str) -> libvirt_api.Definition:
    if subject == "-":
        return _from_xml("standard input", sys.stdin.buffer.read())
    if os.path.exists(subject):
        return _from_xml(subject, _read_file(subject))
    return libvirt_api.find_guest(subject)


def _from_xml(source: str, xml: bytes) -> libvirt_api.Definition:
    return libvirt_api.Definition("qemu", domain_scan.name(xml) or source, xml)


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CgwError(f"{path}: cannot be read: {error.strerror}") from error
