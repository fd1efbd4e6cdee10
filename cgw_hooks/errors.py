"""Every error that cgw-hooks raises on purpose.

The text of each is one line to a person, naming the guest, the element, the
value and the cure. ``exit_code`` is what ``cgw`` ends with; the README lists
them.
"""


class CgwError(Exception):
    """Something went wrong that a person can mend."""

    exit_code = 1


class InvalidAnnotation(CgwError):
    """A guest declares its published ports in a way that cannot be carried out."""

    exit_code = 3


class InvalidConfig(CgwError):
    """The node's own configuration cannot be used."""

    exit_code = 5


class PortConflict(CgwError):
    """A port is asked for that another guest, or the node itself, has already."""

    exit_code = 4


class RecordError(CgwError):
    """The records under /run/cgw cannot be read, written or locked."""

    exit_code = 6


class RulesetError(CgwError):
    """The kernel or libnftables refused a transaction; nothing of it was applied."""

    exit_code = 6


class LinkError(CgwError):
    """A network device or one of its addresses cannot be changed."""

    exit_code = 6


class HypervisorError(CgwError):
    """libvirt did not answer, or does not know the guest."""

    exit_code = 7


class InstallError(CgwError):
    """The hooks cannot be put in place, or taken away."""

    exit_code = 6


def quoted(value: object, limit: int = 80) -> str:
    """Show an untrusted value on one line: control characters escaped, long ones cut."""
    text = str(value)
    if len(text) > limit:
        text = text[:limit] + "..."
    # isprintable() denies newlines, terminal escapes, lone surrogates and
    # direction overrides; ascii() spells them out.
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + '"'
