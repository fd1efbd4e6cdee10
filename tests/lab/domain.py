"""Definitions of the lab's guests and libvirt networks, as libvirt's XML.

Nothing here knows the hook: `publish` is put into the metadata without a change.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from tests.lab import network

GUEST_FOLDER = "/usr/lib/cgw-lab"
"""Where a node sees the folder of the guest image."""

PUBLISH_NAMESPACE = "urn:cgw-hooks:1"
BRIDGE = "bridge"
_CPUS = {
    "qemu": (
        "  <cpu mode='custom' match='exact' check='none'>"
        "<model fallback='forbid'>qemu64</model></cpu>\n"
    ),
    "kvm": "  <cpu mode='host-passthrough'/>\n",
}
_KERNEL_OPTIONS = (
    "quiet loglevel=0 noreplace-smp tsc=reliable mitigations=off nokaslr no_timer_check "
    "cryptomgr.notests apparmor=0 panic=0"
)


def guest_uuid(octet: int) -> str:
    """The uuid of the guest with this number."""
    return f"c9000000-0000-4000-8000-{octet:012x}"


def guest_mac(octet: int, interface_index: int = 0) -> str:
    """The MAC of the guest's first interface, or of a later one."""
    if interface_index == 0:
        return f"{network.MAC_PREFIX}{octet:02x}"
    return f"52:54:00:05:{5 + interface_index:02x}:{octet:02x}"


def publish_element(inner: str, address: str | None = None) -> str:
    """The `<cgw:publish>` element around `inner`."""
    attribute = f" address={quoteattr(address)}" if address else ""
    return f'<cgw:publish xmlns:cgw="{PUBLISH_NAMESPACE}"{attribute}>{inner}</cgw:publish>'


def domain_xml(  # noqa: PLR0913 - each is what some test varies
    name: str,
    *,
    octet: int,
    publish: str | None = None,
    publish_address: str | None = None,
    metadata: str = "",
    interface: str | Sequence[str] = BRIDGE,
    driver: str = "qemu",
    addresses: str | None = None,
    gateways: str | None = None,
    interface_ip: str | None = None,
    sctp: bool = False,
    disk: str | None = None,
    memory_mib: int = 96,
    initrd: str = "",
    clock_ahead: int = 0,
    guest_folder: str = GUEST_FOLDER,
) -> str:
    """The definition of a guest that answers as `name`.

    `octet` (1 to 250) gives its uuid, MAC and, on the guest bridge, addresses. `publish` is the
    inner XML of `cgw:publish`; `metadata` is more metadata. `interface` is "bridge", a libvirt
    network's name, or a list of them. `addresses` ("10.5.5.11/24,fd00:5::11/64", or "dhcp") and
    `gateways` are for its first interface; left out: those of the guest bridge, or "dhcp" on a
    libvirt network. `interface_ip` puts libvirt's `<ip address>` on the first interface. `initrd`
    is what QEMU and Xen guests boot. Of QEMU guests alone: `disk` is the path of a qcow2 image,
    which the guest does not look at, `clock_ahead` by how many seconds their clock is wrong.
    The driver "kvm" is QEMU with KVM. `guest_folder` is where the host has the guest image.
    """
    interfaces = [interface] if isinstance(interface, str) else list(interface)
    if addresses is None and interfaces[0] == BRIDGE:
        addresses = f"{network.guest_address(octet)}/24,{network.guest_address6(octet)}/64"
        gateways = gateways or f"{network.GATEWAY_ADDRESS},{network.GATEWAY_ADDRESS6}"
    settings = [f"lab.name={name}", f"lab.address={addresses or 'dhcp'}"]
    settings += [f"lab.gateway={gateways}"] if gateways else []
    settings += ["lab.sctp"] if sctp else []
    if publish is not None:
        metadata += publish_element(publish, publish_address)
    devices = "".join(
        _interface_xml(
            source, guest_mac(octet, index), driver, interface_ip if index == 0 else None
        )
        for index, source in enumerate(interfaces)
    )
    devices += _disk_xml(disk) if disk else ""
    files = (f"{guest_folder}/vmlinux", initrd or f"{guest_folder}/initramfs")
    if driver in _CPUS:
        body = _qemu_xml(settings, devices, files, clock_ahead, _CPUS[driver])
    elif driver == "xen":
        body = _xen_xml(settings, devices, files)
    else:
        body = _lxc_xml(settings, devices)
    return (
        f"<domain type='{driver}'>\n"
        f"  <name>{escape(name)}</name>\n"
        f"  <uuid>{guest_uuid(octet)}</uuid>\n"
        f"  <metadata>{metadata}</metadata>\n"
        f"  <memory unit='MiB'>{memory_mib}</memory>\n"
        f"  <vcpu>1</vcpu>\n"
        f"{body}"
        f"</domain>\n"
    )


def _interface_xml(source: str, mac: str, driver: str, address: str | None) -> str:
    kind, attribute = ("bridge", "bridge") if source == BRIDGE else ("network", "network")
    place = network.GUEST_BRIDGE if source == BRIDGE else source
    model = "<model type='virtio'/><rom enabled='no'/>" if driver in _CPUS else ""
    ip = f"<ip address={quoteattr(address)}/>" if address else ""
    return (
        f"    <interface type='{kind}'><mac address='{mac}'/>"
        f"<source {attribute}={quoteattr(place)}/>{ip}{model}</interface>\n"
    )


def _disk_xml(path: str) -> str:
    return (
        f"    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file={quoteattr(path)}/><target dev='vda' bus='virtio'/></disk>\n"
    )


def _boot_xml(kind: str, settings: Sequence[str], files: tuple[str, str]) -> str:
    command_line = escape(" ".join([*settings, _KERNEL_OPTIONS]))
    kernel, initrd = files
    return (
        f"  <os>\n"
        f"    {kind}\n"
        f"    <kernel>{kernel}</kernel>\n"
        f"    <initrd>{initrd}</initrd>\n"
        f"    <cmdline>{command_line}</cmdline>\n"
        f"  </os>\n"
    )


def _qemu_xml(
    settings: Sequence[str], devices: str, files: tuple[str, str], clock_ahead: int, cpu: str
) -> str:
    kind = "<type arch='x86_64' machine='pc'>hvm</type>"
    return (
        f"{_boot_xml(kind, settings, files)}"
        f"  <features><acpi/></features>\n"
        f"{cpu}"
        f"  <clock offset='variable' adjustment='{clock_ahead}' basis='utc'/>\n"
        f"  <on_poweroff>destroy</on_poweroff>\n"
        f"  <on_reboot>restart</on_reboot>\n"
        f"  <on_crash>destroy</on_crash>\n"
        f"  <devices>\n"
        f"    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
        f"{devices}"
        f"    <controller type='usb' model='none'/>\n"
        f"    <memballoon model='none'/>\n"
        f"    <panic model='isa'/>\n"
        f"  </devices>\n"
    )


def _xen_xml(settings: Sequence[str], devices: str, files: tuple[str, str]) -> str:
    kind = "<type arch='x86_64' machine='xenpv'>linux</type>"
    return (
        f"{_boot_xml(kind, settings, files)}"
        f"  <on_poweroff>destroy</on_poweroff>\n"
        f"  <on_reboot>restart</on_reboot>\n"
        f"  <on_crash>destroy</on_crash>\n"
        f"  <devices>\n"
        f"{devices}"
        f"  </devices>\n"
    )


def _lxc_xml(settings: Sequence[str], devices: str) -> str:
    arguments = "".join(f"<initarg>{escape(setting)}</initarg>" for setting in settings)
    return (
        f"  <os><type>exe</type><init>/init</init>{arguments}</os>\n"
        f"  <devices>\n"
        f"    <filesystem type='mount'><source dir='{GUEST_FOLDER}/container'/>"
        f"<target dir='/'/></filesystem>\n"
        f"{devices}"
        f"    <console type='pty'/>\n"
        f"  </devices>\n"
    )


def nat_network_xml(
    name: str = "default", *, third_octet: int = 123, hosts: Sequence[tuple[int, int]] = ()
) -> str:
    """A libvirt NAT network 192.168.X.0/24 with DHCP; `hosts` are (guest octet, address octet)."""
    prefix = f"192.168.{third_octet}"
    bridge = "virbr0" if name == "default" else f"virbr-{name}"[:15]
    reservations = "".join(
        f"<host mac='{guest_mac(guest)}' ip='{prefix}.{address}'/>" for guest, address in hosts
    )
    return (
        f"<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\n"
        f"  <name>{escape(name)}</name>\n"
        f"  <forward mode='nat'/>\n"
        f"  <bridge name='{bridge}' stp='off' delay='0'/>\n"
        f"  <ip address='{prefix}.1' netmask='255.255.255.0'>\n"
        f"    <dhcp><range start='{prefix}.2' end='{prefix}.254'/>{reservations}</dhcp>\n"
        f"  </ip>\n"
        # By default dnsmasq pings an address for 3 s before offering the address.
        f"  <dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options>\n"
        f"</network>\n"
    )
