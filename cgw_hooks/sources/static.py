"""Remote guests, as the config and the files in ``guests.d`` name them."""

from __future__ import annotations

import os
import time

from cgw_hooks.core.guest import REMOTE, Guest, GuestKey
from cgw_hooks.core.parse import fields
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.errors import CgwError, InvalidConfig
from cgw_hooks.host import paths, routes
from cgw_hooks.host.config_file import read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.annotation import Annotation
    from cgw_hooks.core.node_config import NodeConfig

_SUFFIX = ".xml"


def remote_guests(config: NodeConfig) -> Iterator[tuple[GuestKey, Guest | CgwError]]:
    """Yield each remote guest or its error; the first entry of a name counts.

    A guest without an address is left out: its file is only for the hook on the guest's own
    node.
    """
    seen = set()
    for source in (_configured, _in_files):
        for name, found in source(config):
            if name not in seen:
                seen.add(name)
                yield GuestKey(REMOTE, name), _publishable(found, config)


def beside_registry(
    configured: Iterable[tuple[GuestKey, Guest | CgwError]], registered: Iterable[Guest]
) -> Iterator[tuple[GuestKey, Guest | CgwError]]:
    """Yield the remote guests of the config that the registry does not name: what it says counts.

    An entry without a uuid is the guest of its name.
    """
    registered = list(registered)
    uuids, names = {guest.uuid for guest in registered}, {guest.name for guest in registered}
    for key, found in configured:
        is_named = not isinstance(found, CgwError) and (
            found.uuid in uuids if found.uuid else found.name in names
        )
        if not is_named:
            yield key, found


def refuse_invalid(config: NodeConfig) -> None:
    """Raise ``CgwError`` if an entry could be published on no node, whatever its network is."""
    for source in (_configured, _in_files):
        for _, found in source(config):
            if isinstance(found, CgwError):
                raise found
            found.guest(found.addresses, time.time())


def _configured(config: NodeConfig) -> Iterator[tuple[str, Annotation | CgwError]]:
    for annotation in config.remote_guests:
        yield annotation.name, annotation


def _in_files(_config: NodeConfig) -> Iterator[tuple[str, Annotation | CgwError]]:
    directory = paths.guests_directory()
    try:
        files = sorted(file for file in os.listdir(directory) if file.endswith(_SUFFIX))
    except OSError:
        return
    for file in files:
        name = file.removesuffix(_SUFFIX)
        try:
            annotation = _read(name, os.path.join(directory, file))
        except CgwError as error:
            yield name, error
        else:
            if annotation and annotation.addresses:
                yield name, annotation


def _read(name: str, path: str) -> Annotation | None:
    from cgw_hooks.core.parse.domain_xml import parse_domain  # lxml

    try:
        fields.parse_name(name)
    except ValueError as error:
        raise InvalidConfig(path, "a guest cannot have this name", str(error)) from None
    xml = read_config(path)
    return parse_domain(GuestKey(REMOTE, name), name, xml) if xml is not None else None


def _publishable(found: Annotation | CgwError, config: NodeConfig) -> Guest | CgwError:
    if isinstance(found, CgwError):
        return found
    try:
        guest = found.guest(found.addresses, time.time())
        refuse_unpublishable(guest, config, routes.route_to)
    except CgwError as error:
        return type(error)(f'remote-guest "{found.name}"', error.message, error.cure)
    # The libvirt networks of the definition are those of another node.
    return guest._replace(network_bridges=())
