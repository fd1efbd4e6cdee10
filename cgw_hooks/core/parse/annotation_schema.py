"""The annotation and its schema, which describes its shape for editors and other programs.

The parser (``domain_xml``) decides what is valid; nobody but ``cgw check`` needs the schema.
"""

from __future__ import annotations

from functools import cache

from lxml import etree

from cgw_hooks.core.guest import GuestKey
from cgw_hooks.core.parse.domain_xml import Reader


def complaint(name: str, xml: bytes, schema: bytes) -> str:
    """Return why the RELAX NG schema refuses the annotation of a guest; empty if it does not.

    ``xml`` and ``name`` are those of ``parse_domain``. A definition without an annotation is
    accepted. Raises ``InvalidAnnotation`` if there is no annotation that could be compared.
    """
    reader = Reader(GuestKey("", ""), name)
    publish = reader.publish_element(reader.document(xml))
    if publish is None:
        return ""
    validator = _validator(schema)
    if validator.validate(etree.ElementTree(publish)):
        return ""
    said = validator.error_log.last_error
    return said.message if said is not None else "it does not match"


@cache
def _validator(schema: bytes) -> etree.RelaxNG:
    return etree.RelaxNG(etree.fromstring(schema))
