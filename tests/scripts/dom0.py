"""A folder that stands for dom0: the vif script in /etc/xen/scripts, vif-bridge and xenstore.

Small programs stand for vif-bridge (which sources vif-post.d, with errors trapped, as Xen's own
does) and for xenstore's tools, on files.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.scripts.script_host import ScriptHost
from tests.unit.builders import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

VIF_SCRIPT = ROOT / "hooks/xl/vif-cgw"
#: The vif's place in xenstore.
BACKEND = "backend/vif/3/0"
_PLACES = ("vif-cgw", "vif-post.d/cgw.hook")

_VIF_BRIDGE = """\
#!/bin/bash
set -e
trap 'echo trapped >>{root}/bridge; exit 1' ERR
echo "$*" >>{root}/bridge
if [ -e {root}/bridge-fails ]; then exit 5; fi
command=$1
shift
eval "$@"
for hook in "${{0%/*}}"/vif-post.d/*.hook; do
    if [ -x "$hook" ]; then . "$hook"; fi
done
echo done >>{root}/bridge
if [ "$command" = online ]; then xenstore-write "$XENBUS_PATH/hotplug-status" connected; fi
"""
_XENSTORE = """\
#!/bin/bash
cd {root}/store
case ${{0##*/}} in
xenstore-read) cat "${{1#/}}" && echo ;;
xenstore-ls) [ "$1" = -f ] && for file in "$2"/*; do echo "$file = \\"$(cat "$file")\\""; done ;;
xenstore-write) while [ $# -gt 1 ]; do printf %s "$2" >"${{1#/}}" || exit; shift 2; done ;;
esac
"""


class Dom0(ScriptHost):
    """Stands for /etc/xen/scripts and xenstore as well."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.has_program("scripts/vif-bridge", _VIF_BRIDGE.format(root=root))
        for tool in ("read", "ls", "write"):
            self.has_program(f"bin/xenstore-{tool}", _XENSTORE.format(root=root))
        for path in self._scripts():
            path.parent.mkdir(exist_ok=True)
            shutil.copy(VIF_SCRIPT, path)
        self.says("/local/domain/3/name", "web1")
        self.says("/local/domain/3/vm", "/vm/c0ffee")
        self.says(f"{BACKEND}/ip", "10.5.5.201")

    def _scripts(self) -> list[Path]:
        return [self.root / "scripts" / place for place in _PLACES]

    def installs(self, python: Path | str, cgw: Path, client: Path | str) -> None:
        """Write the vif script as `cgw install --xen` does, for these programs."""
        text = VIF_SCRIPT.read_text(encoding="utf-8")
        unset = "cgw_python= cgw=cgw cgw_client=\n"
        assert text.count(unset) == 1
        written = f"cgw_python='{python}' cgw='{cgw}' cgw_client='{client}'\n"
        for path in self._scripts():
            path.write_text(text.replace(unset, written), encoding="utf-8")

    def says(self, path: str, value: str) -> None:
        """Put a value into xenstore."""
        file = self.root / "store" / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value, encoding="utf-8")

    def status(self) -> tuple[str, str]:
        """What xl reads of the vif: hotplug-status and hotplug-error."""
        files = [self.root / "store" / BACKEND / f"hotplug-{what}" for what in ("status", "error")]
        found = [file.read_text(encoding="utf-8") if file.exists() else "" for file in files]
        return found[0], found[1]

    def bridged(self) -> list[str]:
        """How vif-bridge was called so far, and how it got on."""
        file = self.root / "bridge"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def run(
        self,
        script: str,
        *arguments: str,
        netdev: str = "",
        enter: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the vif's script as xl does; online and offline of a vif where nothing else is said.

        ``netdev``: what the vif says as gatewaydev. ``enter``: a command that runs it elsewhere.
        """
        if netdev:
            self.says(f"{BACKEND}/gatewaydev", netdev)
        arguments = arguments if len(arguments) > 1 else (*arguments, "type_if=vif")
        xl = {"XENBUS_PATH": BACKEND, "vif": "vif3.0", "CGW_CONFIG": f"{self.root}/etc/cgw.toml"}
        return subprocess.run(
            [*enter, self.root / "scripts" / script, *arguments],
            env={
                **self.environment(),
                **xl,
                **({"netdev": netdev} if netdev else {}),
                **(variables or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            timeout=60,
            check=False,
        )
