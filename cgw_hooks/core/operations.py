"""What cgw does at each of libvirt's hook operations, and whether a failure may stop the guest.

Source: https://libvirt.org/hooks.html. A non-zero exit code refuses the start at prepare, is
ignored at stopped and release, and *kills the running guest* at reconnect.
"""

# This module runs for every guest of the host, so it must not import anything (enum takes 4 ms).


class Action:
    """What one hook call does to the guest's ports."""

    NOTHING = "nothing"
    #: Reserve the listening ports; add no NAT elements before the guest has started.
    RESERVE = "reserve"
    #: Add the NAT elements.
    PUBLISH = "publish"
    #: Remove the NAT elements, and keep the ports reserved until the guest is released.
    WITHDRAW = "withdraw"
    #: Remove the NAT elements and release the ports.
    RELEASE = "release"


#: Other operations do nothing. "start" comes between prepare and started and is not needed.
#: "restore" and "migrate" come before prepare; libvirt would take their stdout as the guest's
#: XML.
ACTIONS = {
    "prepare": Action.RESERVE,
    "started": Action.PUBLISH,
    "reconnect": Action.PUBLISH,
    "stopped": Action.WITHDRAW,
    "release": Action.RELEASE,
}

#: The libvirt drivers that call hooks with domain XML and these operations.
DRIVERS = ("qemu", "lxc", "libxl")

#: The shutoff reasons (virDomainShutoffReason, passed to release since libvirt 10.5) after which
#: the guest's connections cannot continue. After the other reasons (migrated, saved, from
#: snapshot, daemon, unknown) a connection may continue, here or on another node.
_REASONS_THAT_END_CONNECTIONS = frozenset({"shutdown", "destroyed", "crashed", "failed"})


#: The shutoff reasons at the former node of a guest that has migrated, and at the node that a guest
#: should have migrated to.
MIGRATED, FAILED = "migrated", "failed"


def action(operation: str) -> str:
    """Return the action for a hook operation; an unknown one, of a later libvirt, does nothing."""
    return ACTIONS.get(operation, Action.NOTHING)


def may_refuse(operation: str) -> bool:
    """Whether a non-zero exit code refuses the guest's start and has no other effect."""
    return operation == "prepare"


def ends_connections(reason: str) -> bool:
    """Whether the guest's established TCP connections cannot continue.

    ``reason`` is the hook's fourth argument. Before libvirt 10.5 it is "-", which does not
    distinguish a migration from a shutdown.
    """
    return reason in _REASONS_THAT_END_CONNECTIONS
