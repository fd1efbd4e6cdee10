"""Certificates for etcd, made with openssl(1): a certification authority, members, clients."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

MEMBER, NODE, NODE_WITH_CN = "member", "node", "node-with-cn"
AUTHORITY, OTHER_AUTHORITY = "ca", "other-ca"

_CONFIG = "[req]\ndistinguished_name=dn\n[dn]\n"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7")
# Python 3.13 wants the identifiers of the keys (RFC 5280), which old versions of openssl leave out.
_OWN_KEY, _KEY_OF_AUTHORITY = "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"
_AUTHORITY = (
    "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", _OWN_KEY,
)  # fmt: skip
#: etcd's JSON gateway is a client of its own member, with the member's certificate.
_BOTH_ENDS = (
    "basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth",
    _OWN_KEY, _KEY_OF_AUTHORITY,
)  # fmt: skip


def make_certificates(folder: Path, addresses: Sequence[str]) -> None:
    """Make NAME.pem and NAME.key for each name above, into an existing folder.

    That of the members is valid for all `addresses`. No certificate has a CN, but one: etcd's
    gateway refuses clients with a CN once authentication is on, and would refuse itself.
    """
    (folder / "openssl.cnf").write_text(_CONFIG)
    for authority in (AUTHORITY, OTHER_AUTHORITY):
        _make(folder, authority, f"/O={authority}", _AUTHORITY)
    signed = ("-CA", f"{AUTHORITY}.pem", "-CAkey", f"{AUTHORITY}.key")
    names = ",".join(f"IP:{address}" for address in addresses)
    _make(folder, MEMBER, "/O=etcd", (*_BOTH_ENDS, f"subjectAltName={names}"), signed)
    _make(folder, NODE, "/O=cgw", _BOTH_ENDS, signed)
    _make(folder, NODE_WITH_CN, "/CN=cgw", _BOTH_ENDS, signed)


def _make(
    folder: Path, name: str, subject: str, extensions: Sequence[str], signed: Sequence[str] = ()
) -> None:
    added = [part for extension in extensions for part in ("-addext", extension)]
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-config", "openssl.cnf", *_NEW_KEY, "-subj", subject,
         *files, *added, *signed],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
