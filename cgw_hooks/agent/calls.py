"""Carries out the calls of the agent's clients: hooks, and commands that concern the registry."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from cgw_hooks.agent.registry.requests import Claim, Forget, Import, Save
from cgw_hooks.core.guest import REGISTRY, XL, GuestKey
from cgw_hooks.core.operations import MIGRATED, may_refuse
from cgw_hooks.core.parse import domain_scan
from cgw_hooks.errors import PortConflict, RegistryError
from cgw_hooks.node.hook_answer import Answer, HookCall
from cgw_hooks.node.hook_call import answer, refuse_claim

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgw_hooks.agent.metrics.tally import Tally
    from cgw_hooks.agent.registry.follower import Follower
    from cgw_hooks.agent.registry.inbox import Ticket
    from cgw_hooks.agent.registry.requests import Request
    from cgw_hooks.errors import CgwError
    from cgw_hooks.node.publisher import Publisher

#: Seconds for which a guest's start waits for the registry at most.
_HOOK_SECONDS = 0.3
#: Seconds for which a person waits.
_COMMAND_SECONDS = 10.0
_SILENT = RegistryError("registry", "it did not answer", "see: cgw registry status")


class Calls:
    """Carries out calls, one after the other, in the thread of the hook server."""

    def __init__(
        self,
        publisher: Publisher,
        follower: Follower,
        is_leaving: Callable[[GuestKey], bool],
        tally: Tally,
    ) -> None:
        self._publisher = publisher
        self._tally = tally
        self._is_leaving = is_leaving
        self._follower = follower

    def begin(self, call: HookCall) -> Answer | Question:
        """Carry out a call as far as it does not depend on the registry."""
        if call.driver == REGISTRY:
            return self._command(call)
        began = time.monotonic()
        done = self._begin(call)
        if isinstance(done, Answer):
            self._tally.served(call.operation, time.monotonic() - began)
        else:
            done.on_answer = lambda: self._tally.served(call.operation, time.monotonic() - began)
        return done

    def _begin(self, call: HookCall) -> Answer | Question:
        if call.operation == "release" and call.reason == "-" and self._is_leaving(_key(call)):
            call = call._replace(reason=MIGRATED)
        done = answer(lambda: self._publisher, call)
        if done.exit_code or not self._follower.is_on or not _may_be_refused(call):
            return done
        ticket = self._follower.ask(lambda ticket: Claim(ticket, _key(call)))
        return Question(ticket, _HOOK_SECONDS, done, lambda error: self._refuse(call, error))

    def _refuse(self, call: HookCall, error: CgwError) -> Answer:
        if not isinstance(error, PortConflict):  # the registry does not answer: the guest starts
            return Answer()
        return refuse_claim(self._publisher, _key(call), call, error)

    def _command(self, call: HookCall) -> Answer | Question:
        requests: dict[str, Callable[[Ticket], Request]] = {
            "claim": lambda ticket: Claim(ticket, GuestKey.parse(call.name)),
            "forget": lambda ticket: Forget(ticket, call.name),
            "forget-for-good": lambda ticket: Forget(ticket, call.name, is_for_good=True),
            "import": lambda ticket: Import(ticket, _entries(call.given)),
            "save": Save,
        }
        ticket = self._follower.ask(requests[call.operation])
        silent = Answer(_SILENT.exit_code, str(_SILENT))
        return Question(
            ticket, _COMMAND_SECONDS, silent, lambda error: Answer(error.exit_code, str(error))
        )


class Question:
    """A client that waits for the registry's thread, for ``seconds`` at most."""

    def __init__(
        self,
        ticket: Ticket,
        seconds: float,
        without: Answer,
        refused: Callable[[CgwError], Answer],
    ) -> None:
        self._ticket = ticket
        self._end = time.monotonic() + seconds
        self._without = without
        self._refused = refused
        #: Called once, when the answer is there.
        self.on_answer: Callable[[], None] = lambda: None

    def answer(self) -> Answer | None:
        """Return the answer; None as long as it is not there and its time has not passed."""
        done = self._answer()
        if done:
            self.on_answer()
        return done

    def _answer(self) -> Answer | None:
        if self._ticket.is_done:
            if self._ticket.refusal:
                return self._refused(self._ticket.refusal)
            return Answer(0, self._ticket.text)
        return self._without if time.monotonic() > self._end else None


def _entries(given: bytes) -> tuple[tuple[str, str], ...]:
    return tuple((str(key), str(value)) for key, value in json.loads(given))


def _may_be_refused(call: HookCall) -> bool:
    if call.driver == XL:
        return call.operation == "online"
    return may_refuse(call.operation) and domain_scan.is_annotated(call.given)


def _key(call: HookCall) -> GuestKey:
    if call.driver == XL:
        return GuestKey(XL, call.suboperation)
    return GuestKey(call.driver, domain_scan.uuid(call.given))
