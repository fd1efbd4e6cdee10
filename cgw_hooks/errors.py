"""Every error that cgw-hooks raises on purpose.

Each error names its subject, says what is wrong and what to do, and reads as one line.
``exit_code`` is the exit code of ``cgw``; the README lists the codes.

Every hook call loads this module, so it must not import anything.
"""


class CgwError(Exception):
    """A fault that a person can correct.

    ``subject`` is the guest, file or other thing that has the fault; untrusted names are quoted.
    ``message`` says what is wrong, with the element and the value. ``cure`` says what to do.
    """

    exit_code = 1
    #: Programs distinguish the kinds of errors by this code.
    code = "error"

    def __init__(self, subject: str, message: str, cure: str = "") -> None:
        super().__init__(subject, message, cure)
        self.subject, self.message, self.cure = subject, message, cure

    def __str__(self) -> str:
        return one_line(self.subject, self.message, self.cure)


class InvalidAnnotation(CgwError):
    """A guest's declaration of its published ports cannot be carried out."""

    exit_code = 3
    code = "invalid-annotation"


class PortConflict(CgwError):
    """Another guest, or the node itself, already owns a port that a guest asks for."""

    exit_code = 4
    code = "port-conflict"


class InvalidConfig(CgwError):
    """The node's own configuration cannot be used."""

    exit_code = 5
    code = "invalid-config"


class InvalidBan(CgwError):
    """The command line, or a list of clients, does not say whom to ban."""

    exit_code = 2
    code = "invalid-ban"


class BanRefused(CgwError):
    """Only a mistake would ban this client."""

    code = "ban-refused"


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


class AddressInUse(LinkError):
    """Another node still answers for an address that this one should take over."""

    code = "address-in-use"


class ReplicationError(CgwError):
    """conntrackd, which tells other nodes of this node's flows, does not do its work."""

    exit_code = 6
    code = "replication"


class InstallError(CgwError):
    """The hooks cannot be installed or removed."""

    exit_code = 6
    code = "install"


class HypervisorError(CgwError):
    """libvirt or xenstore did not answer."""

    exit_code = 7
    code = "hypervisor"


class HypervisorHangs(HypervisorError):
    """libvirt has accepted a connection, and does not answer."""


class NotFound(CgwError):
    """No guest and no file has the given name."""

    exit_code = 8
    code = "not-found"


class RegistryError(CgwError):
    """The cluster's registry did not answer, or refused a request.

    ``is_unknown``: the request may or may not have been carried out.
    """

    exit_code = 9
    code = "registry"

    def __init__(
        self, subject: str, message: str, cure: str = "", *, is_unknown: bool = False
    ) -> None:
        super().__init__(subject, message, cure)
        self.is_unknown = is_unknown


def one_line(subject: str, message: str, cure: str) -> str:
    """Format an error or a problem: ``SUBJECT: MESSAGE; CURE``."""
    return f"{subject}: {message}; {cure}" if cure else f"{subject}: {message}"


def quoted(value: object, limit: int = 80) -> str:
    """Quote an untrusted value on one line: escape control characters, cut after ``limit``."""
    text = str(value)
    if len(text) > limit:
        text = text[:limit] + "..."
    return f'"{printable(text)}"'


def printable(text: str) -> str:
    """Return the text with every character escaped that could control a terminal.

    ``isprintable()`` is False for C0 and C1 control characters, newlines, lone surrogates and the
    direction overrides of Unicode (category Cf); ``ascii()`` spells them out.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
