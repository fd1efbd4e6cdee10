"""The alerts and the dashboard of docs/examples, read by Prometheus's own promtool."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lab.promtool import promtool
from tests.netns.asker import Asker
from tests.netns.configs import NODE
from tests.netns.conftest import NodeMaker
from tests.netns.test_figures import settings
from tests.netns.test_metrics import LISTEN, ask, measured
from tests.unit.builders import ROOT

pytestmark = pytest.mark.netns

ALERTS = ROOT / "docs/examples/prometheus"
DASHBOARD = ROOT / "docs/examples/grafana/cgw-dashboard.json"


def run(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(promtool()), *arguments], cwd=ALERTS, input=given, text=True, capture_output=True,
        check=False,
    )  # fmt: skip


def expressions() -> list[str]:
    """The questions of the dashboard, as Grafana asks them."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [each.replace("$__rate_interval", "5m").replace("$node", ".*") for each in found]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "cgw-alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "cgw-alerts-test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_the_example(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_understands_the_questions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions())
    ]
    assert len(rules) >= 8
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_all_that_the_examples_ask_for(make_node: NodeMaker, client: Asker) -> None:
    node = make_node(LISTEN + "bytes = true\n")
    settings(node, "acct")
    web1 = node.guest("web1", "2202:22", serves="22/tcp")
    with measured(node):
        web1.start()
        client.asks(NODE[4], 2202)
        node.serve(NODE[4], "2202/tcp")  # a problem, in five seconds
        page = ""
        while "cgw_problems{" not in page:
            page = ask(node).partition("\r\n\r\n")[2]
    checked = run("check", "metrics", given=page)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    there = set(re.findall(r"^([a-z_]+)[{ ]", page, re.MULTILINE))
    alerts = (ALERTS / "cgw-alerts.yml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\b(?:cgw|process)_[a-z_]+", " ".join([*expressions(), alerts])))
    assert len(asked) > 8
    assert asked <= there
