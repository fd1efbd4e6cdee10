"""What the agent tells Prometheus from within its sandbox; what `cgw log` reads of a journal."""

import json
from typing import Any

import pytest

from tests.libvirt.waiting import eventually
from tests.systemd.agent_host import GUEST, NEIGHBOUR, UNIT, AgentHost

pytestmark = pytest.mark.systemd

CONFIG = "/etc/cgw/cgw.toml"
FOLDER = "/var/lib/prometheus/node-exporter"
FILE = f"{FOLDER}/cgw.prom"
SOCKET = "/run/cgw-metrics/socket"
#: As docs/monitoring.md says; the group of Prometheus is one that the host has.
FOR_SOCKET = """\
echo 'd /run/cgw-metrics 2750 root nogroup' >/etc/tmpfiles.d/cgw-metrics.conf
systemd-tmpfiles --create cgw-metrics.conf
"""
SCRAPE = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9718/metrics').read())"
SCRAPE_SOCKET = f"""
import socket
s = socket.socket(socket.AF_UNIX)
s.connect({SOCKET!r})
s.sendall(b'GET /metrics HTTP/1.0\\r\\n\\r\\n')
print(s.makefile().read())
"""


def log(on: AgentHost, *arguments: str) -> list[dict[str, Any]]:
    on.shell("journalctl --sync")
    found: list[dict[str, Any]]
    found = json.loads(on.host.run(["cgw", "log", *arguments, "--json"]).stdout)["entries"]
    return found


def test_the_sandbox_lets_the_agent_tell_prometheus(on: AgentHost) -> None:
    on.shell(f"mkdir -p {FOLDER}; {FOR_SOCKET}")
    before = on.cursor()
    on.host.write(CONFIG, f'[metrics]\nlisten = "127.0.0.1:9718"\ntextfile = "{FILE}"\n')
    on.host.systemctl("restart", UNIT)  # not reload: the folder is new for the sandbox
    assert eventually(lambda: on.host.path(FILE).exists())
    assert 'cgw_published_ports{state="published"} 1.0' in on.host.path(FILE).read_text()
    assert on.host.path(FILE).stat().st_mode & 0o777 == 0o644
    page = on.host.run(["python3", "-c", SCRAPE]).stdout
    assert "cgw_node_readable 1.0" in page
    assert "process_resident_memory_bytes" in page
    on.drop_in("[Service]\nReadWritePaths=/run/cgw-metrics\n")
    on.host.write(CONFIG, f'[metrics]\nlisten = "{SOCKET}"\n')
    on.host.systemctl("restart", UNIT)
    assert eventually(lambda: on.host.path(SOCKET).exists())
    assert on.shell(f"stat -c '%a %U %G' {SOCKET}").strip() == "660 root nogroup"
    assert not on.host.path(FILE).exists()
    page = on.host.run(["python3", "-c", SCRAPE_SOCKET]).stdout
    assert "cgw_node_readable 1.0" in page
    on.drop_in("")
    on.host.path(CONFIG).unlink()
    on.host.systemctl("restart", UNIT)
    assert not on.host.path(SOCKET).exists()
    assert "agent: metrics" not in on.journal(since=before)


def test_what_the_sandbox_forbids_is_said_with_its_cure(on: AgentHost) -> None:
    on.shell("mkdir -p /srv/metrics")
    before = on.cursor()
    on.host.write(CONFIG, '[metrics]\ntextfile = "/srv/metrics/cgw.prom"\n')
    on.host.systemctl("restart", UNIT)
    assert eventually(lambda: "agent: metrics: " in on.journal(since=before))
    assert "Read-only file system; see cgw.toml(5)" in on.journal(since=before)


def test_the_log_says_who_served_a_hook_and_who_typed_a_command(on: AgentHost) -> None:
    on.call_hook("prepare", "started")
    on.call_hook("stopped", "release")
    on.host.systemctl("stop", UNIT)
    on.call_hook("prepare", "started")
    on.call_hook("stopped", "release")
    on.host.systemctl("start", UNIT)
    found = [(each["event"], each["served_by"]) for each in log(on, NEIGHBOUR)[-4:]]
    assert found == [
        ("published", "agent"), ("withdrawn", "agent"), ("published", "call"), ("withdrawn", "call")
    ]  # fmt: skip
    on.shell(f"SUDO_USER=anna cgw publish {GUEST} 9090:80 --live")
    on.shell(f"SUDO_USER=anna cgw unpublish {GUEST} 9090 --live")
    typed = [each for each in log(on, GUEST) if each["user"] == "anna"]
    assert [each["event"] for each in typed] == ["publish", "unpublish"]
    assert "9090" in typed[0]["ports"]
    uuid = on.virsh("domuuid", GUEST)
    assert [each for each in log(on, uuid) if each["user"] == "anna"] == typed
    lines = on.host.run(["cgw", "log", GUEST, "--since", "1h"]).stdout.splitlines()
    assert any("  publish  " in line and "  anna  " in line for line in lines)
