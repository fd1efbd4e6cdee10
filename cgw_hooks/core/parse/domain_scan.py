"""What can be told of domain XML without parsing it.

Runs for every guest of the host, most of which publish nothing: no import here.
"""

_UUID_LENGTH = 36
_UUID_CHARACTERS = frozenset("0123456789abcdef-")


def is_annotated(xml: bytes) -> bool:
    """Whether the XML declares a namespace of ours, of whatever version.

    libvirt writes the quotes of a text as entities, so a description that
    mentions the namespace is not taken for its declaration.
    """
    return b'="urn:cgw-hooks:' in xml or b"='urn:cgw-hooks:" in xml


def uuid(xml: bytes) -> str:
    """The guest's uuid: the first ``<uuid>``, which libvirt writes before any free text.

    Empty where there is none.
    """
    text = xml.partition(b"<uuid>")[2][:_UUID_LENGTH].decode("ascii", "replace").lower()
    return text if len(text) == _UUID_LENGTH and set(text) <= _UUID_CHARACTERS else ""


def digest(xml: bytes) -> str:
    """A short text that is another one where the metadata is another one; empty without any.

    Empty as well where an interface is on a libvirt network: libvirt names the network's bridge
    only once the guest has started (libvirt 9.0), so a later definition says more.

    libvirt writes ``<metadata>`` before any element that could hold its name as text.
    """
    from binascii import crc32

    if b"<source network=" in xml:
        return ""

    metadata = xml.partition(b"<metadata>")[2].partition(b"</metadata>")[0]
    return f"{len(metadata)}-{crc32(metadata):08x}" if metadata else ""


def name(xml: bytes) -> str:
    """The guest's name, to name it in an error; empty where there is none."""
    return xml.partition(b"<name>")[2].partition(b"</name>")[0].decode("utf-8", "replace")
