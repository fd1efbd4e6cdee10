"""Remote guests, as the config and the files in ``guests.d`` name them."""

from __future__ import annotations

import os

from cgw_hooks.core.guest import REMOTE, Guest, GuestKey
from cgw_hooks.core.parse import fields
from cgw_hooks.core.policy import refuse_unpublishable
from cgw_hooks.errors import CgwError, InvalidConfig
from cgw_hooks.host import paths, routes
from cgw_hooks.host.config_file import read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

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
        guest = found.guest(found.addresses)
        refuse_unpublishable(guest, config, routes.route_to)
    except CgwError as error:
        return type(error)(f'remote-guest "{found.name}"', error.message, error.cure)
    # The libvirt networks of the definition are those of another node.
    return guest._replace(network_bridges=())
