"""Every error that cgw-hooks raises on purpose.

Each says who or what it is about, what is wrong and what to do, and reads as one
line. ``exit_code`` is what ``cgw`` ends with; the README lists them.

Loaded by every hook call: no import here.
"""


class CgwError(Exception):
    """Something went wrong that a person can mend.

    ``subject``: the guest, file or thing that it is about, untrusted names quoted.
    ``message``: what is wrong, with the element and the value. ``cure``: what to do.
    """

    exit_code = 1
    #: What a program tells one kind of error from another by.
    code = "error"

    def __init__(self, subject: str, message: str, cure: str = "") -> None:
        super().__init__(subject, message, cure)
        self.subject, self.message, self.cure = subject, message, cure

    def __str__(self) -> str:
        return one_line(self.subject, self.message, self.cure)


class InvalidAnnotation(CgwError):
    """A guest declares its published ports in a way that cannot be carried out."""

    exit_code = 3
    code = "invalid-annotation"


class PortConflict(CgwError):
    """A guest asks for a port that another guest, or the node itself, has already."""

    exit_code = 4
    code = "port-conflict"


class InvalidConfig(CgwError):
    """The node's own configuration cannot be used."""

    exit_code = 5
    code = "invalid-config"


class RecordError(CgwError):
    """The records under /run/cgw cannot be read, written or locked."""

    exit_code = 6
    code = "record"


class RulesetError(CgwError):
    """The kernel or libnftables refused a transaction; nothing of it was applied."""

    exit_code = 6
    code = "ruleset"


class LinkError(CgwError):
    """A network device or one of its addresses cannot be changed."""

    exit_code = 6
    code = "link"


class InstallError(CgwError):
    """The hooks cannot be put in place, or taken away."""

    exit_code = 6
    code = "install"


class HypervisorError(CgwError):
    """libvirt or xenstore did not answer."""

    exit_code = 7
    code = "hypervisor"


class NotFound(CgwError):
    """There is no such guest, and no such file."""

    exit_code = 8
    code = "not-found"


def one_line(subject: str, message: str, cure: str) -> str:
    """How an error or a problem reads: ``SUBJECT: MESSAGE; CURE``."""
    return f"{subject}: {message}; {cure}" if cure else f"{subject}: {message}"


def quoted(value: object, limit: int = 80) -> str:
    """Show an untrusted value on one line: control characters escaped, long ones cut."""
    text = str(value)
    if len(text) > limit:
        text = text[:limit] + "..."
    return f'"{printable(text)}"'


def printable(text: str) -> str:
    """Text that a terminal does not obey.

    ``isprintable()`` is False for C0 and C1 control characters, newlines, lone surrogates and the
    direction overrides of Unicode (category Cf); ``ascii()`` spells them out.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
