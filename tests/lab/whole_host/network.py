"""The network of a whole host: a client outside, and the host's first device. Both are static.

    client ------------- 192.0.2.0/24 ------------- host1
    .100                                            .11

libvirt's own network inside is 192.168.122.0/24.
"""

from tests.lab.namespace import Namespace

TAP = "uplink0"
CLIENT_ADDRESS = "192.0.2.100"
HOST_ADDRESS = "192.0.2.11"
HOST_MAC = "52:54:00:00:02:11"
#: For Debian's own ifupdown. The kernel names the device: see the option net.ifnames.
INTERFACES = f"""\
auto lo
iface lo inet loopback

auto eth0
iface eth0 inet static
    address {HOST_ADDRESS}/24
    gateway {CLIENT_ADDRESS}
"""


def wire(client: Namespace) -> None:
    """Give the client its end, a tap device that QEMU opens in the same namespace."""
    client.ip(
        f"tuntap add dev {TAP} mode tap\n"
        f"link set {TAP} up\n"
        f"address add {CLIENT_ADDRESS}/24 dev {TAP}\n"
    )
