"""docs/examples: the package on many hosts, with the real Ansible and cloud-init."""

import hashlib
import re
from collections.abc import Iterator

import pytest

from tests.lab.provisioning_root import provisioning_root
from tests.libvirt.waiting import eventually
from tests.packaging.built import Built
from tests.packaging.packages import CONFIG, later
from tests.packaging.provisioned_host import ANSWER, DIST, EXAMPLES, ProvisionedHost
from tests.systemd.conftest import booted_host

pytestmark = [pytest.mark.packaging, pytest.mark.extended]

GATEWAY_ADDRESS = "10.5.5.254"
RUNS, IS_OFF = "enabled active", "disabled inactive"
CLOUD_INIT = EXAMPLES / "cloud-init.yaml"
URL = "https://files.example.net/cgw-hooks.deb"
HTTP_PORT = 8088


@pytest.fixture
def on(suite: str, built: Built) -> Iterator[ProvisionedHost]:
    with booted_host(f"example-{suite}-", suite, provisioning_root) as (host, outside, until_end):
        yield ProvisionedHost(host, outside, until_end, built)


# -- Ansible ---------------------------------------------------------------------------------


def test_the_role_makes_a_gateway_and_keeps_it(on: ProvisionedHost) -> None:
    """One test: the host takes longer to start than all of this."""
    check_mode_changes_nothing_on_a_new_host(on)
    installs_a_single_host(on)
    makes_it_a_gateway(on)
    changes_nothing_the_second_time(on)
    follows_a_change_of_the_config(on)
    refuses_an_invalid_config(on)
    upgrades_and_keeps_the_config(on)


def check_mode_changes_nothing_on_a_new_host(on: ProvisionedHost) -> None:
    assert on.play("--check", "--diff").changed > 0
    assert "" == installed(on)
    found = on.host.run(["find", "/etc", "/var", "-name", "*cgw*"]).stdout
    assert "" == found


def installs_a_single_host(on: ProvisionedHost) -> None:
    assert on.play(node="host1").changed > 0
    assert installed(on)
    assert {"cgw": RUNS, "cgw-node": IS_OFF, "cgw-sync": IS_OFF} == on.units()
    assert 0 == on.play(node="host1").changed


def makes_it_a_gateway(on: ProvisionedHost) -> None:
    before = on.host.path(CONFIG).read_text()
    assert on.play("--check").changed > 0
    assert before == on.host.path(CONFIG).read_text()
    assert IS_OFF == on.units()["cgw-node"]
    on.play()
    assert {"cgw": RUNS, "cgw-node": RUNS, "cgw-sync": IS_OFF} == on.units()
    assert GATEWAY_ADDRESS in on.addresses()
    assert ANSWER == on.wait_for_answer()


def changes_nothing_the_second_time(on: ProvisionedHost) -> None:
    before = on.started()
    for options in ([], ["--check"]):
        assert 0 == on.play(*options).changed
    assert before == on.started()


def follows_a_change_of_the_config(on: ProvisionedHost) -> None:
    before = on.started()
    on.edit_inventory("2202:22", "2203:22")
    assert on.play().changed > 0
    assert ANSWER == on.wait_for_answer(2203)
    assert "refused" == on.asks(2202)
    assert before == on.started(), "a reload, not a restart"


def refuses_an_invalid_config(on: ProvisionedHost) -> None:
    before = on.host.path(CONFIG).read_text()
    on.edit_inventory("full-mesh =", "full-mess =")
    refused = on.play(check=False)
    assert (0, 1) == (refused.changed, refused.failed)
    assert "full-mess" in refused.said
    assert before == on.host.path(CONFIG).read_text()
    assert ANSWER == on.asks(2203)
    on.edit_inventory("full-mess =", "full-mesh =")


def upgrades_and_keeps_the_config(on: ProvisionedHost) -> None:
    before, version = on.host.path(CONFIG).read_text(), installed(on)
    deb = f"cgw_hooks_deb={later(on.host, on.deb, config='# a later default')}"
    assert on.play("--check", "--extra-vars", deb).changed > 0
    assert version == installed(on)
    assert on.play("--extra-vars", deb).changed > 0
    assert f"{version}+later1" == installed(on)
    assert before == on.host.path(CONFIG).read_text()
    assert ANSWER == on.asks(2203)
    assert 0 == on.play("--extra-vars", deb).changed


def installed(on: ProvisionedHost) -> str:
    """The version of the package, or nothing."""
    form = "-f=${Version}"
    return on.host.run(["dpkg-query", "-W", form, "cgw-hooks"], check=False).stdout


# -- cloud-init ------------------------------------------------------------------------------


def test_cloud_init_makes_a_gateway(on: ProvisionedHost) -> None:
    example = CLOUD_INIT.read_text()
    said = on.validate(example)
    assert 0 == said.returncode, said.stderr
    assert on.validate(example.replace("runcmd:", "runcmd: 1\nx:")).returncode != 0
    on.provision(served_by(on, example))
    assert {"cgw": RUNS, "cgw-node": RUNS, "cgw-sync": IS_OFF} == on.units()
    assert GATEWAY_ADDRESS in on.addresses()
    assert ANSWER == on.wait_for_answer()


def served_by(on: ProvisionedHost, example: str) -> str:
    """The example with a server of the host itself, and the checksum of this package."""
    on.host.run(["systemd-run", "python3", "-m", "http.server", f"{HTTP_PORT}",
                 "--bind=127.0.0.1", f"--directory={DIST}"])  # fmt: skip
    connect = f"import socket; socket.create_connection(('127.0.0.1', {HTTP_PORT}))"
    assert eventually(lambda: on.host.run(["python3", "-c", connect], check=False).returncode == 0)
    digest = hashlib.sha256(on.host.path(on.deb).read_bytes()).hexdigest()
    assert 1 == example.count(URL)
    assert 1 == len(re.findall(r"SHA256:[0-9a-f]{64}", example))
    here = example.replace(URL, f"http://127.0.0.1:{HTTP_PORT}{on.deb.removeprefix(DIST)}")
    return re.sub(r"SHA256:[0-9a-f]{64}", f"SHA256:{digest}", here)
