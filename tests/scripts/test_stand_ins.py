"""lxml that was imported with stand-ins for other modules can do all that it can otherwise."""

from __future__ import annotations

import subprocess

import pytest

from tests.unit.builders import ROOT

pytestmark = pytest.mark.scripts

#: The distribution's interpreter with its lxml, and as few modules as possible.
_PYTHON = "/usr/bin/python3"
_BEGIN = """
import sys
sys.path.insert(0, sys.argv[1])
from cgw_hooks.host.stand_ins import StandIns

class Target:
    def start(self, tag, attributes, namespaces):
        self.found = tag, dict(namespaces)
    def end(self, tag): pass
    def close(self): return self.found

with StandIns():
    from lxml import etree
"""


def said_by(program: str) -> str:
    """What a program prints that has imported lxml; a warning or an error would fail it."""
    done = subprocess.run(
        [_PYTHON, "-I", "-W", "error", "-c", _BEGIN + program, ROOT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.strip()


def test_the_real_modules_are_not_loaded_and_nothing_stands_for_them_afterwards() -> None:
    assert "[]" == said_by(
        "etree.fromstring(b'<a><b/></a>')\n"
        "print([m for m in ('inspect', 'ast', 'dis', 'tokenize', 'gzip') if m in sys.modules])"
    )


def test_what_lxml_needs_of_them_works_when_it_needs_it() -> None:
    parser = "etree.XMLParser(target=Target())"
    assert "('{x}a', {None: 'x'})" == said_by(
        f"found = etree.fromstring('<a xmlns=\"x\"/>', {parser})\n"
        "print((found[0], {k or None: v for k, v in found[1].items()}))"
    )
    assert "True b'<a/>'" == said_by(
        "import io\n"
        "out = io.BytesIO()\n"
        "etree.ElementTree(etree.Element('a')).write(out, compression=9)\n"
        "import gzip\n"
        "print(gzip.__name__ in sys.modules, gzip.decompress(out.getvalue()))"
    )


def test_a_later_import_gets_the_real_module() -> None:
    assert "True True" == said_by(
        "import inspect, gzip\n"
        "print(inspect.isgenerator(x for x in ''), gzip.decompress(gzip.compress(b'')) == b'')"
    )


def test_a_name_that_no_stand_in_knows_comes_from_the_real_module() -> None:
    assert "True True" == said_by(
        "del sys.modules['lxml.etree']  # as if it were not loaded\n"
        "with StandIns():\n"
        "    from inspect import Parameter\n"
        "    print(isinstance(Parameter, type), 'ast' in sys.modules)"
    )


def test_a_module_that_is_loaded_already_stays() -> None:
    assert "True" == said_by(
        "import inspect as real\nwith StandIns():\n    import inspect\n    print(inspect is real)"
    )


def test_nothing_stands_for_anything_once_lxml_is_loaded() -> None:
    assert "module" == said_by("with StandIns():\n    import gzip\n    print(type(gzip).__name__)")
