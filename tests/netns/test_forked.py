"""A forked program is what a new interpreter is: its namespace, files, environment and end."""

import json
import signal
from collections.abc import Iterator

import pytest

from tests.lab import forked
from tests.lab.forked import Forked
from tests.lab.namespace import Namespace, namespace
from tests.netns.node import PYTHON

pytestmark = pytest.mark.netns

_ITSELF = """
import json, os, socket, sys
print(json.dumps({
    "devices": [name for _, name in socket.if_nameindex()], "argv": sys.argv, "cwd": os.getcwd(),
    "environment": dict(os.environ), "input": sys.stdin.read(),
    "files": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:4],
}))
"""


@pytest.fixture(scope="module")
def inside() -> Iterator[Namespace]:
    with namespace("forked") as made:
        made.ip("link add only0 type bridge")
        yield made


def run(inside: Namespace, code: str, *arguments: str) -> Forked:
    return forked.start(
        inside, "os:getpid", ["program", *arguments],
        python=PYTHON, modules=["json"], environment={"HOME": "/"}, folder="/etc", code=code,
    )  # fmt: skip


def test_it_is_inside_its_namespace_with_its_own_files_and_environment(inside: Namespace) -> None:
    process = run(inside, _ITSELF, "one")
    told, complaint = process.communicate(b"given")
    assert (process.returncode, complaint) == (0, b"")
    assert json.loads(told) == {
        "devices": ["lo", "only0"], "argv": ["program", "one"], "cwd": "/etc",
        "environment": {"HOME": "/"}, "input": "given",
        "files": [0, 1, 2, 3],  # 3 is the folder that it lists
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "status", "complaint"),
    [
        ("import sys; sys.exit(7)", 7, b""),
        ("import sys; sys.exit('what is wrong')", 1, b"what is wrong\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, b""),
        ("", 0, b""),
    ],
)
def test_its_end_is_told_as_it_was(
    inside: Namespace, code: str, status: int, complaint: bytes
) -> None:
    process = run(inside, code or "pass")
    assert process.communicate()[1] == complaint
    assert process.returncode == status


def test_an_exception_ends_it_with_a_traceback(inside: Namespace) -> None:
    process = run(inside, "raise LookupError('nowhere')")
    assert process.communicate()[1].endswith(b"LookupError: nowhere\n")
    assert process.returncode == 1


def test_calls_share_nothing(inside: Namespace) -> None:
    for _ in range(2):
        code = "import json; print(hasattr(json, 'mark')); json.mark = 1"
        assert run(inside, code).communicate() == (b"False\n", b"")


def test_many_megabytes_pass_both_ways(inside: Namespace) -> None:
    given = b"x" * 3_000_000
    told, _ = run(inside, "import sys; sys.stdout.write(sys.stdin.read())").communicate(given)
    assert told == given


def test_one_that_takes_too_long_is_killed(inside: Namespace) -> None:
    process = run(inside, "import time; time.sleep(3600)")
    with pytest.raises(TimeoutError):
        process.communicate(timeout=0.2)
    assert process.wait() == -signal.SIGKILL
    process.close()
