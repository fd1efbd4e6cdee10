"""docs/examples has the README's cluster; tests/packaging/test_examples.py runs the examples."""

from textwrap import indent

import pytest

from tests.documents import ROOT, block

pytestmark = pytest.mark.unit

EXAMPLES = ROOT / "docs/examples"
#: Without a registry: etcd is not for an example of cgw to install.
CLUSTER = f"{block('README.md#a-cluster.2').text}\n{block('README.md#a-cluster.3').text}"


def test_cloud_init_writes_the_config_of_the_readme() -> None:
    assert indent(CLUSTER, 6 * " ") in (EXAMPLES / "cloud-init.yaml").read_text()


def test_the_inventory_has_the_config_of_the_readme_for_each_node() -> None:
    shown = CLUSTER.replace('"192.168.122.11"', '"{{ uplink_address }}"')
    shown = shown.replace('"10.5.5.251"', '"{{ node_address }}"')
    assert indent(shown, 10 * " ") in (EXAMPLES / "ansible/inventory.yml").read_text()
