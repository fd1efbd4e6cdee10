"""libvirt domain XML -> Annotation. The only module that imports lxml.

libvirt writes the XML, but users write its metadata. So the parser expands no entity, opens no
file or URL and refuses huge trees.
"""

from __future__ import annotations

from lxml import etree

from cgw_hooks.core.annotation import Annotation, PortForward
from cgw_hooks.core.guest import Interface
from cgw_hooks.core.parse import domain_scan, fields
from cgw_hooks.core.published_port import MAX_PORT, ClientLimits
from cgw_hooks.errors import InvalidAnnotation, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from cgw_hooks.core.guest import GuestKey
    from cgw_hooks.core.published_port import Address

    _T = TypeVar("_T")

NAMESPACE = "urn:cgw-hooks:1"
_FORWARD_ATTRIBUTES = {"proto", "address", "source", "until", "limit", "max-connections"}
_PUBLISH = f"{{{NAMESPACE}}}publish"
#: The start of every version of the namespace: an unknown version is an error.
_NAMESPACE_FAMILY = "urn:cgw-hooks:"
#: libvirt accepts strings of at most 4 MiB from its clients (REMOTE_STRING_MAX) and adds far
#: less than that to a definition.
_MAX_BYTES = 8 << 20
#: The white space of https://www.w3.org/TR/xml/#NT-S
_XML_SPACE = " \t\n\r"
_OUR_PREFIX = f"{{{NAMESPACE}}}"
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


def parse_domain(key: GuestKey, name: str, xml: bytes) -> Annotation | None:
    """Parse what the guest publishes; return None if its definition has no annotation.

    ``name`` is the guest's name for error messages. ``xml`` is the domain XML, or only the
    ``<publish>`` element as ``virsh metadata`` prints it.

    Raises ``InvalidAnnotation`` naming the guest, the element, the value and the cure. The
    format is that of https://libvirt.org/formatdomain.html; ``<portForward>`` is described in
    its section "Userspace connection using passt".
    """
    return Reader(key, name).annotation(xml)


class Reader:
    """Reads one domain. It knows the guest's name, since every error must name the guest."""

    def __init__(self, key: GuestKey, name: str) -> None:
        self.key = key
        self.name = name

    def annotation(self, xml: bytes) -> Annotation | None:
        """Return what `parse_domain` returns."""
        domain = self.document(xml)
        publish = self.publish_element(domain)
        if publish is None:
            return None
        self._only(publish, attributes={"address"}, children={"portForward"})
        interfaces = tuple(self._interfaces(domain))
        forwards = tuple(f for child in _elements(publish) for f in self.port_forwards(child))
        addresses = self._guest_addresses(publish)
        if not addresses:
            addresses = one_to_a_family(a for i in interfaces for a in i.addresses)
        uuid = domain_scan.uuid(xml)
        return Annotation(self.key, self.name, uuid, interfaces, addresses, forwards)

    def document(self, xml: bytes) -> etree._Element:
        """Return the root element of XML that users may have written."""
        if len(xml) > _MAX_BYTES:
            raise self._error(
                f"<domain> is {len(xml)} bytes long",
                f"define the guest again with at most {_MAX_BYTES} bytes",
            )
        try:
            domain = etree.fromstring(xml, _PARSER)
        except etree.XMLSyntaxError as error:
            raise self._error(
                f"<domain>: the XML cannot be read: {quoted(error.msg)}",
                "define the guest again with complete, well-formed XML",
            ) from None
        if domain.getroottree().docinfo.internalDTD is not None:
            raise self._error(
                "<!DOCTYPE> is not allowed", "remove the document type and its entities"
            )
        return domain

    def publish_element(self, domain: etree._Element) -> etree._Element | None:
        """Return the annotation in a document, or None. Raises ``InvalidAnnotation``."""
        if domain.tag == "publish":
            return domain
        found = [
            element
            for metadata in domain.iterchildren("metadata")
            for element in _elements(metadata)
            if _is_of_our_family(element)
        ]
        if _is_of_our_family(domain):
            found = [domain]
        for element in found:
            if element.tag != _PUBLISH:
                raise self._error(
                    f"<metadata>: {quoted(element.tag)} is not known",
                    f'write <publish xmlns="{NAMESPACE}">',
                )
        if len(found) > 1:
            raise self._error(f"<publish> occurs {len(found)} times", "keep one of them")
        return found[0] if found else None

    def port_forwards(self, element: etree._Element) -> Iterator[PortForward]:
        """Yield the meaning of each ``<range>`` of a ``<portForward>``, in their order."""
        self._only(element, attributes=_FORWARD_ATTRIBUTES, children={"range"})
        if "proto" not in element.attrib:
            raise self._error("<portForward proto> is missing", "give tcp, udp or sctp")
        protocol = self._value(element, "proto", fields.parse_protocol)
        listen = self._optional(element, "address", fields.parse_listen_address)
        sources = self._optional(element, "source", fields.parse_networks) or ()
        until = self._optional(element, "until", fields.parse_time)
        limits = self._limits(element)
        if listen and any(network.version != listen.version for network in sources):
            raise self._unusable(
                "<portForward source>",
                element.get("source"),
                "give networks of the address's family",
            )
        ranges = list(_elements(element))
        if not ranges:
            raise self._error(
                "<portForward> has no <range>", 'add one: <range start="2202" to="22"/>'
            )
        for child in ranges:
            start, end, to = self._range(child)
            yield PortForward(protocol, listen, sources, start, end, to, until, limits)

    def _limits(self, element: etree._Element) -> ClientLimits | None:
        rate, unit = self._optional(element, "limit", fields.parse_rate) or (0, "")
        connections = self._optional(element, "max-connections", fields.parse_connections) or 0
        return ClientLimits(rate, unit, connections) if rate or connections else None

    def _range(self, element: etree._Element) -> tuple[int, int, int]:
        self._only(element, attributes={"start", "end", "to"}, children=set())
        if "start" not in element.attrib:
            raise self._error("<range start> is missing", "give the listening port")
        start = self._value(element, "start", fields.parse_port)
        end = self._optional(element, "end", fields.parse_port) or start
        to = self._optional(element, "to", fields.parse_port) or start
        if end < start:
            raise self._unusable("<range end>", end, f"give an end of at least {start}")
        if to + end - start > MAX_PORT:
            raise self._unusable(
                "<range to>",
                to,
                f"the range is {end - start + 1} ports long: end it at guest port 65535",
            )
        return start, end, to

    def _guest_addresses(self, publish: etree._Element) -> tuple[Address, ...]:
        addresses = [
            self._parsed("<publish address>", word, fields.parse_guest_address)
            for word in fields.words(publish.get("address", ""))
        ]
        if len({address.version for address in addresses}) < len(addresses):
            raise self._unusable(
                "<publish address>", publish.get("address"), "give one address per IP family"
            )
        return tuple(addresses)

    def _interfaces(self, domain: etree._Element) -> Iterator[Interface]:
        """Yield the interfaces; a value that libvirt leaves out stays empty or None."""
        for element in domain.iterfind("devices/interface"):
            mac, source = element.find("mac"), element.find("source")
            yield Interface(
                mac=mac.get("address", "").lower() if mac is not None else "",
                network=source.get("network") if source is not None else None,
                bridge=_bridge(source) if source is not None else None,
                addresses=tuple(_usable_addresses(element)),
            )

    def _only(self, element: etree._Element, *, attributes: set[str], children: set[str]) -> None:
        """Refuse unknown names: a misspelt limit must not be ignored."""
        for attribute in element.keys():  # noqa: SIM118  (an element is no mapping)
            if attribute not in attributes:
                known = ", ".join(sorted(attributes))
                raise self._error(
                    f"{_shown(element)} {quoted(attribute)}: unknown attribute",
                    f"known are: {known}",
                )
        for child in _elements(element):
            if child.tag.removeprefix(_OUR_PREFIX) not in children:
                known = ", ".join(f"<{c}>" for c in sorted(children)) or "none"
                raise self._error(
                    f"{_shown(element)} {quoted(child.tag)}: unknown element",
                    f"known are: {known}",
                )
        for text in (element.text, *(child.tail for child in element)):
            if text and text.strip(_XML_SPACE):
                raise self._error(
                    f"{_shown(element)} {quoted(text.strip())}: text is not allowed",
                    "remove the text",
                )

    def _optional(
        self, element: etree._Element, attribute: str, parse: Callable[[str], _T]
    ) -> _T | None:
        return self._value(element, attribute, parse) if attribute in element.attrib else None

    def _value(self, element: etree._Element, attribute: str, parse: Callable[[str], _T]) -> _T:
        text = element.get(attribute, "")
        try:
            return parse(text)
        except ValueError as error:
            where = f"<{etree.QName(element).localname} {attribute}>"
            raise self._unusable(where, text, str(error)) from None

    def _parsed(self, where: str, text: str, parse: Callable[[str], _T]) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise self._unusable(where, text, str(error)) from None

    def _unusable(self, element: str, value: object, cure: str) -> InvalidAnnotation:
        return self._error(f"{element} {quoted(value)} cannot be used", cure)

    def _error(self, message: str, cure: str) -> InvalidAnnotation:
        return InvalidAnnotation(f"guest {quoted(self.name)}", message, cure)


def one_to_a_family(addresses: Iterator[Address]) -> tuple[Address, ...]:
    """Return the first address of each IP family."""
    first: dict[int, Address] = {}
    for address in addresses:
        first.setdefault(address.version, address)
    return tuple(first.values())


def _bridge(source: etree._Element) -> str | None:
    try:
        return fields.parse_interface_name(source.get("bridge", ""))
    except ValueError:
        return None


def _usable_addresses(interface: etree._Element) -> Iterator[Address]:
    """Yield the addresses of ``<ip>`` that a guest can publish at: not link-local ones."""
    for ip in interface.iterfind("ip"):
        try:
            yield fields.parse_guest_address(ip.get("address", ""))
        except ValueError:
            continue


def _shown(element: etree._Element) -> str:
    return f"<{etree.QName(element).localname}>"


def _is_of_our_family(element: etree._Element) -> bool:
    return element.tag.startswith(f"{{{_NAMESPACE_FAMILY}")


def _elements(parent: etree._Element) -> Iterator[etree._Element]:
    """Yield the child elements, but no comments, processing instructions and entity nodes."""
    return parent.iterchildren(tag=etree.Element)
