"""The files of a lab node that differ from those of a freshly installed Debian host."""

from uuid import UUID

from tests.lab.network import NodeAddresses

FOLDERS = ("etc/libvirt/hooks", "var/log/libvirt/qemu", "var/log/libvirt/lxc")
"""Made when missing: the smaller set of libvirt's packages does not bring all of them."""

PACKAGED_NETWORKS = (
    "etc/libvirt/qemu/networks/autostart/default.xml",
    "etc/libvirt/qemu/networks/default.xml",
)
"""Removed: the packaged network has the lab's uplink subnet. Tests define what they need."""

_MOST_NODES = 4
_NODE_UUID_BASE = 0xC9000001_0000_4000_8000_000000000000

QEMU_CONF = """\
# No cgroups, no systemd, no virtlogd and no security module in the lab.
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

_LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
host_uuid = "{host_uuid}"
log_filters = "1:util.hook"
log_outputs = "1:file:/var/log/libvirt/libvirtd.log"
"""

_TC_SHIM = """\
#!/bin/sh
# libvirt's nftables backend asks for a checksum action that some kernels lack.
case "$*" in *"action csum"*) exit 0;; esac
exec /usr/sbin/tc "$@"
"""


def config_files(index: int, firewall_backend: str | None) -> dict[str, str]:
    """Path in the node -> content."""
    hosts = {"localhost": "127.0.0.1"}
    for number in range(1, _MOST_NODES + 1):
        hosts[f"node{number}"] = NodeAddresses(number).guest_network
    files = {
        "etc/libvirt/qemu.conf": QEMU_CONF,
        "etc/libvirt/libvirtd.conf": _LIBVIRTD_CONF.format(
            host_uuid=UUID(int=_NODE_UUID_BASE + index)
        ),
        "etc/hosts": "".join(f"{address} {name}\n" for name, address in hosts.items()),
    }
    if firewall_backend is not None:
        files["etc/libvirt/network.conf"] = f'firewall_backend = "{firewall_backend}"\n'
    return files


def programs() -> dict[str, str]:
    """Path in the node -> content of an executable."""
    return {"usr/local/sbin/tc": _TC_SHIM}
