"""What an admin does with the package on a host of the lab."""

from subprocess import CompletedProcess

from tests.lab.host import Host

CONFIG = "/etc/cgw/cgw.toml"
HOOK = "/etc/libvirt/hooks/qemu.d/50-cgw"
_APT = ("apt-get", "--yes", "-o", "Dpkg::Use-Pty=0")
_WITHOUT_QUESTIONS = {"DEBIAN_FRONTEND": "noninteractive"}


def apt(host: Host, *arguments: str, check: bool = True) -> CompletedProcess[str]:
    """Run apt-get. Raises HostError when it fails (and `check`)."""
    return host.run([*_APT, *arguments], environment=_WITHOUT_QUESTIONS, check=check)


def upgrade(host: Host, deb: str, *, number: int = 1, config: str = "") -> None:
    """Install a later version of this package file of the host: see `later`."""
    keep = "Dpkg::Options::=--force-confold"
    apt(host, "-o", keep, "install", later(host, deb, number=number, config=config))
    host.run(["rm", "-r", "/root/later"])


def later(host: Host, deb: str, *, number: int = 1, config: str = "") -> str:
    """Make a later version of this package file of the host, "VERSION+laterNUMBER", in /root/later.

    It has another hook, and these lines more in its default config. Returns its path.
    """
    script = f"""\
rm -rf /root/later && mkdir /root/later && cd /root/later
dpkg-deb -R {deb} tree
sed -i 's/^Version: .*/&+later{number}/' tree/DEBIAN/control
printf '%s' '{config}' >>tree{CONFIG}
echo '# later' >>tree{HOOK}
dpkg-deb -b tree later.deb
rm -r tree
"""
    host.run(["sh", "-ec", script])
    return "/root/later/later.deb"
