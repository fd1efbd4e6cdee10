"""What can fail between a node and the registry."""

from collections.abc import Callable

from tests.registry.cluster import RegistryCluster


def kill_leader(made: RegistryCluster) -> None:
    """Kill the member that leads."""
    made.etcd.leader().kill()


def kill_all(made: RegistryCluster) -> None:
    """Kill all members."""
    made.etcd.kill()


def cut_off_leader(made: RegistryCluster) -> None:
    """Take the leading member off the network."""
    made.etcd.leader().port.cut_off()


def cut_off_own_member(made: RegistryCluster) -> None:
    """Take the member of node1 off the network."""
    made.etcd.members[0].port.cut_off()


def silence_path(made: RegistryCluster) -> None:
    """Let the path from node1 to all members lose every packet."""
    made.ports[1].silence(2379)


def pause_leader(made: RegistryCluster) -> None:
    """Stop the process of the leading member."""
    made.etcd.leader().pause()


OUTAGES: dict[str, Callable[[RegistryCluster], None]] = {
    "leader killed": kill_leader,
    "leader cut off": cut_off_leader,
    "own member cut off": cut_off_own_member,
    "path silently dead": silence_path,
    "leader hung": pause_leader,
}
