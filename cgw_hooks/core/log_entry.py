"""What cgw has logged: an entry of the journal, or a line of a syslog file -> its fields."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from cgw_hooks.core.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: The fields of cgw, less ``CGW_`` (see host/log.py).
FIELDS = ("event", "guest", "id", "uuid", "operation", "by", "served_by", "ports", "code", "user")
_ERROR = 3  # LOG_ERR of syslog(3)

_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\S+|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) \S+ "
    r"cgw(?:\[\d+\])?: (?P<message>.*)"
)
#: The wording of the messages: host/log.py has no fields to write into a file.
_ABOUT_GUEST = re.compile(
    r'(?:(?P<by>agent|sync|publish|unpublish|refused): )?guest "(?P<guest>.*?)": '
    r"(?P<event>published|withdrawn|has migrated)?(?P<rest>.*)"
)
_REPAIRED = re.compile(r"(?P<by>agent|sync): repaired ")


class LogEntry(NamedTuple):
    """One message. ``fields`` are those of ``FIELDS`` that it has."""

    #: Seconds since 1970.
    time: float
    message: str
    fields: dict[str, str]
    is_error: bool = False

    def is_about(self, guest: str) -> bool:
        """Whether the entry is about the guest with this name or uuid."""
        return guest in {self.fields.get("guest"), self.fields.get("uuid")}


def from_journal(entry: Mapping[str, Any]) -> LogEntry:
    """Read one entry as ``journalctl -o json`` prints it. Raises ``ValueError``."""
    fields = {name: _text(entry.get(f"CGW_{name.upper()}")) for name in FIELDS}
    try:
        moment = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
    except (KeyError, TypeError) as error:
        raise ValueError(f"it has no time: {error!r}") from error
    return LogEntry(
        moment,
        _text(entry.get("MESSAGE")),
        {name: value for name, value in fields.items() if value},
        is_error=_text(entry.get("PRIORITY")) == str(_ERROR),
    )


def from_syslog(line: str, now: datetime) -> LogEntry | None:
    """Read one line of a syslog file; None if it is not of cgw. ``now`` has a time zone.

    The traditional format has no year: the line is at most a year old.
    """
    found = _LINE.match(line)
    if not found:
        return None
    try:
        moment = _moment(found["time"], now)
    except ValueError:
        return None
    message = found["message"]
    return LogEntry(moment.timestamp(), message, _fields_of(message))


def _moment(text: str, now: datetime) -> datetime:
    if text[0].isdigit():
        return datetime.fromisoformat(text)
    for year in (now.year, now.year - 1, now.year - 2, now.year - 3):
        try:
            moment = datetime.strptime(f"{year} {text}", "%Y %b %d %H:%M:%S")  # noqa: DTZ007
        except ValueError:  # the 29th of February
            continue
        moment = moment.replace(tzinfo=now.tzinfo)
        if moment <= now + timedelta(days=1):
            return moment
    raise ValueError(f"{text!r} is no time")


def _fields_of(message: str) -> dict[str, str]:
    """Return what the wording of a message tells."""
    found = _ABOUT_GUEST.match(message)
    if not found:
        repaired = _REPAIRED.match(message)
        return {"event": "repaired", "by": repaired["by"]} if repaired else {}
    by, event = found["by"] or "hook", found["event"]
    fields = {"guest": found["guest"], "by": "hook" if by == "refused" else by}
    if event == "has migrated":
        return {**fields, "event": "migrated"}
    rest = found["rest"].strip()
    if event:
        return {**fields, "event": event, **({"ports": rest} if rest else {})}
    if by in {"publish", "unpublish"}:
        return {**fields, "event": by, "ports": rest}
    return {**fields, "event": "refused" if by == "refused" else "problem"}


def _text(value: object) -> str:
    """Return the text of a field: journalctl prints bytes that are not printable as numbers."""
    if isinstance(value, list):
        if all(isinstance(byte, int) for byte in value):
            return bytes(byte & 0xFF for byte in value).decode("utf-8", "replace")
        return _text(value[0]) if value else ""  # a field that is there twice
    return value if isinstance(value, str) else ""
