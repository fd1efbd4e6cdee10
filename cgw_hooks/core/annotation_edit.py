"""Changes a guest's annotation: XML text in, XML text out.

Users have written the text, so it is parsed as the hook parses it, and an invalid annotation is
refused. Everything that a change does not concern stays: other ports, attributes and comments.
"""

from __future__ import annotations

from lxml import etree

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.named_tuple import NamedTuple
from cgw_hooks.core.parse.domain_xml import NAMESPACE, Reader
from cgw_hooks.core.published_port import are_overlapping, host, span
from cgw_hooks.errors import InvalidAnnotation, PortConflict, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgw_hooks.core.annotation import PortForward
    from cgw_hooks.core.parse.port_spec import ListenPorts
    from cgw_hooks.core.published_port import Address

EMPTY = "<publish/>"
_INDENT = "\n  "


def add(
    name: str,
    xml: str | None,
    forwards: Iterable[PortForward],
    now: float,
    addresses: Iterable[Address] = (),
) -> str:
    """Return the annotation with these port forwards, and without those that have expired.

    ``xml`` None means that there is no annotation yet. A port that is there already gets the new
    end of its time. ``addresses`` become the guest's addresses. Raises ``PortConflict`` if a port
    is there with another target, other sources or limits, and ``InvalidAnnotation``.
    """
    edit = _Edit(name, xml or EMPTY)
    edit.remove_expired(now)
    edit.set_addresses(addresses)
    for forward in forwards:
        edit.add(forward)
    return edit.text() or EMPTY


def remove(
    name: str, xml: str, unwanted: Iterable[ListenPorts]
) -> tuple[str | None, list[ListenPorts]]:
    """Return the annotation without these ports, and those that are not published by it.

    The annotation is None if nothing of it is left. Raises ``InvalidAnnotation``.
    """
    edit = _Edit(name, xml)
    missing = [ports for ports in unwanted if not edit.remove(ports)]
    return edit.text(), missing


def remove_expired(name: str, xml: str, now: float) -> str | None:
    """Return the annotation without the port forwards whose time has passed at ``now``.

    None if nothing of it is left. Raises ``InvalidAnnotation``.
    """
    edit = _Edit(name, xml)
    return edit.text() if edit.remove_expired(now) else xml


def definition_with(name: str, domain_xml: bytes, annotation: str | None) -> bytes:
    """Return the domain XML with another annotation, or without one.

    Raises ``InvalidAnnotation`` for a definition that cgw cannot read.
    """
    reader = Reader(GuestKey("", ""), name)
    domain = reader.document(domain_xml)
    former = reader.publish_element(domain)
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(domain, "metadata")
    if former is not None:
        metadata.remove(former)
    if annotation is not None:
        new = reader.document(annotation.encode())
        new.tag = f"{{{NAMESPACE}}}publish"
        metadata.append(new)
    return etree.tostring(domain)


def in_words(forward: PortForward) -> str:
    """Return a port forward in Docker's short form, for messages: ``8080:80/tcp``."""
    address = "" if forward.listen_address is None else f"{host(forward.listen_address)}:"
    listen = span(forward.start, forward.end)
    sources = " from " + ", ".join(map(str, forward.sources)) if forward.sources else ""
    limits = f" limited to {forward.limits}" if forward.limits else ""
    return f"{address}{listen}:{forward.to}/{forward.protocol}{sources}{limits}"


def time_in_words(seconds: float) -> str:
    """Return a time as RFC 3339 writes it, in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Place(NamedTuple):
    """A ``<range>`` of the annotation, its ``<portForward>``, and what both mean."""

    outer: etree._Element
    inner: etree._Element
    forward: PortForward


class _Edit:
    """One annotation, as a tree that is being changed."""

    def __init__(self, name: str, xml: str) -> None:
        reader = Reader(GuestKey("", ""), name)
        self._name = name
        self._document = reader.document(xml.encode())
        found = reader.publish_element(self._document)
        if found is None:
            raise InvalidAnnotation(f"guest {quoted(name)}", "there is no <publish>", "add it")
        reader.annotation(etree.tostring(self._document))  # refuses what the hook would refuse
        self._reader = reader
        self._publish = found

    def text(self) -> str | None:
        """Return the whole document; None if no port and no attribute of it is left."""
        is_all = self._publish is self._document
        if is_all and not self._publish.attrib and next(self._places(), None) is None:
            return None
        return etree.tostring(self._document.getroottree(), encoding="unicode")

    def set_addresses(self, addresses: Iterable[Address]) -> None:
        """Write the guest's addresses, unless there are none."""
        written = ",".join(map(str, addresses))
        if written:
            self._publish.set("address", written)

    def add(self, forward: PortForward) -> None:
        """Add a port forward. Raises ``PortConflict`` if its port is there in another form."""
        for place in self._places():
            there = place.forward
            if there._replace(until=None) == forward._replace(until=None):
                self._set_until(place, forward)
                return
            if _are_overlapping(there, forward):
                raise PortConflict(
                    f"guest {quoted(self._name)}",
                    f"{in_words(forward)}: the guest publishes {in_words(there)} already",
                    "unpublish that first",
                )
        self._append(forward)

    def remove(self, ports: ListenPorts) -> bool:
        """Remove listening ports; return whether all of them were there."""
        taken = []
        for place in list(self._places()):
            forward = place.forward
            if forward.protocol != ports.protocol or (
                ports.address is not None and forward.listen_address != ports.address
            ):
                continue
            first, last = max(forward.start, ports.start), min(forward.end, ports.end)
            if first <= last:
                taken.append((first, last))
                self._cut(place, first, last)
        return _is_covered(ports.start, ports.end, taken)

    def remove_expired(self, now: float) -> bool:
        """Remove what has expired; return whether there was anything."""
        expired = [place for place in self._places() if place.forward.has_expired(now)]
        for place in expired:
            self._take_out(place)
        return bool(expired)

    # -- elements ----------------------------------------------------------------------------

    def _places(self) -> Iterator[_Place]:
        for outer in list(self._publish.iterchildren(tag=etree.Element)):
            inner = list(outer.iterchildren(tag=etree.Element))
            for element, forward in zip(inner, self._reader.port_forwards(outer), strict=True):
                yield _Place(outer, element, forward)

    def _set_until(self, place: _Place, forward: PortForward) -> None:
        if place.forward.until == forward.until:
            return
        if len(list(place.outer.iterchildren(tag=etree.Element))) > 1:
            self._take_out(place)  # the other ranges keep their time
            self._append(forward)
        elif forward.until is None:
            del place.outer.attrib["until"]
        else:
            place.outer.set("until", time_in_words(forward.until))

    def _cut(self, place: _Place, first: int, last: int) -> None:
        """Leave of a range what is below ``first`` and above ``last``."""
        forward, inner = place.forward, place.inner
        left = []
        if forward.start < first:
            left.append((forward.start, first - 1, forward.to))
        if last < forward.end:
            left.append((last + 1, forward.end, forward.to + last + 1 - forward.start))
        if not left:
            self._take_out(place)
            return
        _write_range(inner, *left[0])
        for piece in left[1:]:
            new = etree.Element(inner.tag)
            _write_range(new, *piece)
            new.tail = inner.tail
            inner.addnext(new)

    def _append(self, forward: PortForward) -> None:
        publish = self._publish
        namespace = etree.QName(publish).namespace
        prefix = f"{{{namespace}}}" if namespace else ""
        last = publish[-1] if len(publish) else None
        new = etree.SubElement(publish, f"{prefix}portForward")  # with the parent's prefix
        for attribute, value in _attributes(forward).items():
            new.set(attribute, value)
        _write_range(
            etree.SubElement(new, f"{prefix}range"), forward.start, forward.end, forward.to
        )
        if last is None:
            publish.text, new.tail = _INDENT, "\n"
        else:
            new.tail, last.tail = last.tail, publish.text

    def _take_out(self, place: _Place) -> None:
        _remove(place.inner)
        if next(place.outer.iterchildren(tag=etree.Element), None) is None:
            _remove(place.outer)


def _attributes(forward: PortForward) -> dict[str, str]:
    found = {"proto": forward.protocol}
    if forward.listen_address is not None:
        found["address"] = str(forward.listen_address)
    if forward.sources:
        found["source"] = ",".join(map(str, forward.sources))
    if forward.until is not None:
        found["until"] = time_in_words(forward.until)
    if forward.limits and forward.limits.rate:
        found["limit"] = forward.limits.limit
    if forward.limits and forward.limits.connections:
        found["max-connections"] = str(forward.limits.connections)
    return found


def _write_range(element: etree._Element, start: int, end: int, to: int) -> None:
    for attribute in ("start", "end", "to"):
        element.attrib.pop(attribute, "")
    element.set("start", str(start))
    if end > start:
        element.set("end", str(end))
    if to != start:
        element.set("to", str(to))


def _remove(element: etree._Element) -> None:
    """Remove an element and the space behind it; the last one's space closes its parent."""
    parent, previous = element.getparent(), element.getprevious()
    if parent is None:
        return
    if element.getnext() is None:
        if previous is not None:
            previous.tail = element.tail
        else:
            parent.text = None
    parent.remove(element)


def _are_overlapping(one: PortForward, other: PortForward) -> bool:
    return (
        one.protocol == other.protocol
        and one.start <= other.end
        and other.start <= one.end
        and (
            one.listen_address is None
            or other.listen_address is None
            or are_overlapping(one.listen_address, other.listen_address)
        )
    )


def _is_covered(start: int, end: int, pieces: Iterable[tuple[int, int]]) -> bool:
    """Whether the pieces together contain every number from ``start`` to ``end``."""
    for first, last in sorted(pieces):
        if first > start:
            break
        start = max(start, last + 1)
    return start > end
