"""A web, an SSH and a mail server of Debian in a guest, and what they log of their clients."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cache import cache_folder
from tests.lab.chroot_init import SHARED
from tests.lab.forked import CHECKOUT
from tests.lab.namespace import Namespace
from tests.lab.server_root import server_root
from tests.libvirt.waiting import eventually

HTTP, SMTP, SSH = 80, 25, 2222
#: Each server's log, in the shared folder.
LOGS = {HTTP: "nginx.log", SMTP: "postfix.log", SSH: "sshd.log"}
_READY = "ready"

_NGINX = f"""
events {{ }}
http {{
    access_log {SHARED}/{LOGS[HTTP]};
    server {{ listen {HTTP}; listen [::]:{HTTP}; return 204; }}
}}
"""
_START = f"""
mkdir -p /run/sshd
nginx -c {SHARED}/nginx.conf
/usr/sbin/sshd -p {SSH} -o LogLevel=VERBOSE -E {SHARED}/{LOGS[SSH]}
touch /etc/postfix/main.cf
postconf -e inet_protocols=all smtpd_peername_lookup=no myhostname=web2.example \\
    maillog_file={SHARED}/{LOGS[SMTP]} maillog_file_prefixes={SHARED}
postfix start
echo {_READY}
exec cat
"""


class Servers:
    """The servers' logs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def log(self, port: int) -> str:
        """What the server of this port has logged."""
        path = self._folder / LOGS[port]
        return path.read_text() if path.exists() else ""

    def until_logged(self, port: int, words: str, before: str) -> str:
        """Wait until these words are in what it has logged since `before`; return that."""
        eventually(lambda: words in self.log(port).removeprefix(before), 60.0)
        return self.log(port).removeprefix(before)


@contextmanager
def running_servers(guest: Namespace, folder: Path) -> Iterator[Servers]:
    """The servers, which answer when the block begins, in a guest's network."""
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "nginx.conf").write_text(_NGINX)
    mount_point = cache_folder() / "mount-point"
    mount_point.mkdir(exist_ok=True)
    program = ["sh", "-e", "-c", _START]
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *guest.enter_command(),
         "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child",
         sys.executable, "-m", "tests.lab.chroot_init",
         str(server_root("bookworm")), str(mount_point), str(folder), *program],
        cwd=CHECKOUT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    ) as process:  # fmt: skip
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line.strip() == _READY:
                break
        else:
            raise AssertionError("".join(said))
        try:
            yield Servers(folder)
        finally:
            process.kill()
