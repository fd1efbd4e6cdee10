"""Facts about domain XML that need no parser.

This module runs for every guest of the host, and most guests publish nothing. So it must not
import anything at the top.
"""

_UUID_LENGTH = 36
_UUID_CHARACTERS = frozenset("0123456789abcdef-")


def is_annotated(xml: bytes) -> bool:
    """Whether the XML declares a namespace of cgw, of any version.

    libvirt writes quotes within text as entities, so a description that mentions the namespace
    does not match.
    """
    return b'="urn:cgw-hooks:' in xml or b"='urn:cgw-hooks:" in xml


def uuid(xml: bytes) -> str:
    """Return the guest's uuid in lower case, empty if there is none.

    It is the first ``<uuid>``: libvirt writes it before any free text.
    """
    text = xml.partition(b"<uuid>")[2][:_UUID_LENGTH].decode("ascii", "replace").lower()
    return text if len(text) == _UUID_LENGTH and set(text) <= _UUID_CHARACTERS else ""


def digest(xml: bytes) -> str:
    """Return a checksum of the metadata, empty if there is none.

    It is also empty if an interface is on a libvirt network: libvirt 9.0 names the network's
    bridge only after the guest has started, so the later definition must be read again.

    libvirt writes ``<metadata>`` before any element whose text could contain that word.
    """
    from binascii import crc32

    if b"<source network=" in xml:
        return ""

    metadata = xml.partition(b"<metadata>")[2].partition(b"</metadata>")[0]
    return f"{len(metadata)}-{crc32(metadata):08x}" if metadata else ""


def name(xml: bytes) -> str:
    """Return the guest's name for an error message; empty if there is none."""
    return xml.partition(b"<name>")[2].partition(b"</name>")[0].decode("utf-8", "replace")
