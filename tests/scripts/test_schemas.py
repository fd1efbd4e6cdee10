"""`--schema` prints the path of a file of the package; no config is read for it."""

import json
import subprocess
from pathlib import Path

import pytest
from lxml import etree

from tests.unit.builders import CGW

pytestmark = pytest.mark.scripts


def printed(*words: str) -> Path:
    command = [str(CGW), *words, "--schema"]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"CGW_CONFIG": "/dev/full"}
    )
    assert said.stderr == ""
    return Path(said.stdout.removesuffix("\n"))


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (("status",), "cgw status --json"),
        (("status", "--cluster"), "cgw status --cluster --json"),
    ],
)
def test_a_schema_of_json_is_that_of_the_output(words: tuple[str, ...], title: str) -> None:
    assert json.loads(printed(*words).read_text(encoding="utf-8"))["title"] == title


def test_the_schema_of_the_annotation_is_relax_ng() -> None:
    root = etree.fromstring(printed("check").read_bytes())
    assert root.tag == "{http://relaxng.org/ns/structure/1.0}grammar"
