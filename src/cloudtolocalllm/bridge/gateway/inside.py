"""Where a request goes whose maker is known: an engine, the journal or the home API, taken up where it broke off.

Two ways lead here. What was sealed comes from the gateway, opened and proved to be a device's; what comes from the
page that the bridge serves itself (`bridge.page`) has nobody between, and is not sealed. Behind this door they are
treated alike.
"""

from collections.abc import Callable
from typing import Protocol

from cloudtolocalllm.bridge.caller import Caller
from cloudtolocalllm.bridge.exchange import Desk
from cloudtolocalllm.bridge.gateway import home_call
from cloudtolocalllm.bridge.gateway.home_call import HomeCall
from cloudtolocalllm.bridge.gateway.resuming import name_of, take_up
from cloudtolocalllm.bridge.home_api.api import HomeApi
from cloudtolocalllm.bridge.journal import Record
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.link import StreamHandler
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.sealed.errors import MalformedError
from cloudtolocalllm.sealed.resume import Resume, read_resume
from cloudtolocalllm.tunnel import RequestHead

HOME_PREFIX = home_call.PREFIX + "/"
EXCHANGES_PREFIX = HOME_PREFIX + "exchanges/"

Serve = Callable[[RequestHead, Port, Caller, str | None], StreamHandler]
"""Takes a request to an engine or the journal."""


class Visitor(Protocol):
    """Whoever brings a request in; told what matters for its end."""

    is_endless: bool
    """Whether its answer goes on for as long as somebody reads."""
    removes_itself: bool
    """Whether it is the request by which its device is removed, which is answered still."""
    named: bool
    """Whether its answer can be taken up again by a name."""


class Inside:
    """What is behind the bridge's doors."""

    def __init__(self, desk: Desk, home_api: HomeApi, tasks: TaskSet, serve: Serve) -> None:
        """Put it together.

        Args:
            desk: What exchanges share.
            home_api: Answers what is asked of the home itself.
            tasks: Runs its answering.
            serve: Answers what is asked of engines and the journal.
        """
        self._desk = desk
        self._home_api = home_api
        self._tasks = tasks
        self._serve = serve

    def begin(self, visitor: Visitor, head: RequestHead, port: Port, caller: Caller) -> StreamHandler:
        """Hand a request on.

        Args:
            visitor: Who brings it.
            head: The request's.
            port: Where the answer goes.
            caller: Whose it is, by `device`, and what it may do.

        Raises:
            RefusalError: It is not served.
        """
        try:
            resume = read_resume(head.headers)
        except MalformedError:
            raise RefusalError(Problem.BAD_REQUEST, "Expected c2l-exchange and c2l-offset of their form.") from None
        if head.target.startswith(EXCHANGES_PREFIX):
            return self._serve(head, port, caller, None)
        is_home = head.target.startswith(HOME_PREFIX)
        if is_home:
            caller.check_home()
        else:
            caller.check_route(head.target)
        visitor.named = resume is not None
        if resume is not None:
            known = take_up(self._desk.journal, resume, caller.device, head, port, self._desk.clock.monotonic())
            if known is not None:
                return known
        if not is_home:
            return self._serve(head, port, caller, None if resume is None else name_of(resume))
        visitor.removes_itself = (head.method, head.target) == ("DELETE", f"{HOME_PREFIX}devices/{caller.device}")
        return self._ask_home(visitor, head, port, caller, resume)

    def _ask_home(
        self, visitor: Visitor, head: RequestHead, port: Port, caller: Caller, resume: Resume | None
    ) -> StreamHandler:
        desk, endless = self._desk, home_call.streams(head)
        if resume is not None and not endless:
            record = desk.journal.open(name_of(resume), desk.clock.monotonic(), caller.key, caller.device)
            record.request = f"{head.method} {head.target}"
        else:
            record = Record("", device=caller.device)
        visitor.is_endless = endless
        return HomeCall(self._home_api, self._tasks, desk.memory, desk.clock, caller.device, head, port, record)
