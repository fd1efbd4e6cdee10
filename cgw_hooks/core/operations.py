"""libvirt's hook operations -> what to do, and whether a failure may stop the guest.

Source: https://libvirt.org/hooks.html. A non-zero exit refuses the guest at
prepare, is ignored at stopped and release, and *kills the running guest* at
reconnect.
"""

# Runs for every guest of the host: no import here (enum alone is 4 ms).


class Action:
    """What one hook call does to the guest's ports."""

    NOTHING = "nothing"
    #: Reserve the listening ports; add no NAT elements before the guest has started.
    RESERVE = "reserve"
    #: Add the NAT elements.
    PUBLISH = "publish"
    #: Remove the NAT elements, and keep the ports reserved until the guest is released.
    WITHDRAW = "withdraw"
    #: Remove the NAT elements and let others have the ports.
    RELEASE = "release"


#: start comes between prepare and started and adds nothing to them; restore and
#: migrate come before prepare, and whatever they printed would become the guest's XML.
ACTIONS = {
    "prepare": Action.RESERVE,
    "started": Action.PUBLISH,
    "reconnect": Action.PUBLISH,
    "stopped": Action.WITHDRAW,
    "release": Action.RELEASE,
}

#: libvirt drivers that call hooks with domain XML, in the same words.
DRIVERS = ("qemu", "lxc", "libxl")

#: Why a guest was shut off, as release says from libvirt 10.5 on
#: (virDomainShutoffReason), where the guest and its connections are gone for good.
#: After the others (migrated, saved, from snapshot, daemon, unknown) a connection
#: may go on, here or elsewhere.
_REASONS_THAT_END_CONNECTIONS = frozenset({"shutdown", "destroyed", "crashed", "failed"})


def action(operation: str) -> str:
    """What to do at a hook operation; nothing at those that a later libvirt may add."""
    return ACTIONS.get(operation, Action.NOTHING)


def may_refuse(operation: str) -> bool:
    """Whether a non-zero exit refuses the guest's start, and harms nothing else."""
    return operation == "prepare"


def ends_connections(reason: str) -> bool:
    """Whether established TCP connections are over with the guest.

    ``reason`` is the hook's fourth argument: "-" before libvirt 10.5, which does
    not tell a migration from a shutdown.
    """
    return reason in _REASONS_THAT_END_CONNECTIONS
