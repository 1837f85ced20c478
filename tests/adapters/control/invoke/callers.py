"""A model of the functions behind the Invoke API: each answers at once, by a script."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adapters.stores.memory import MemoryStore
from poller.clock import LoopClock
from poller.domain.functions.calls import FunctionAnswer, FunctionCall, FunctionView
from poller.domain.functions.queued_calls import QueuedCall
from poller.domain.functions.waiting_calls import CallPage, CallsRequest, marker_of
from poller.domain.invocations import Outcome, Succeeded
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import FunctionPlan
from poller.rules.functions.naming import NamedFunction
from poller.rules.functions.waiting_calls import place_behind, shown, state_of
from poller.rules.peeking.payloads import PayloadRoom
from poller.runtime.functions.invoke_configs import InvokeConfigs
from tests.adapters.control.aliases.alias_model import AliasModel

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
REQUEST_ID = "6c3ca2b4-0f10-4a30-9d4f-6b0b1f3c2a11"
ORDERS = FunctionView(
    name="orders",
    arn=ARN,
    invoker="python",
    timeout_s=29.5,
    role="arn:aws:iam::111122223333:role/orders",
    handler="app.handler",
    memory_mb=512,
    max_concurrency=4,
)


def echo(call: FunctionCall) -> Outcome:
    return Succeeded(call.payload)


@dataclass
class CallerModel:
    """A FunctionCaller. `answer` makes the outcome of each call, or raises."""

    views: Sequence[FunctionView] = (
        ORDERS,
        FunctionView(name="zebra", arn=ARN.replace("orders", "zebra"), invoker="http", timeout_s=3.0),
    )
    answer: Callable[[FunctionCall], Outcome] = echo
    log: str = ""
    versions: Sequence[str] = ()
    asked: list[FunctionCall] = field(default_factory=list)
    put: list[tuple[FunctionCall, str]] = field(default_factory=list)
    waiting: Sequence[QueuedCall] = ()
    """Asynchronous calls that are not over, in the order in which they are due."""
    listed: list[tuple[str, CallsRequest]] = field(default_factory=list)
    refuses: Exception | None = None
    """What the next asynchronous calls are refused with."""

    def __post_init__(self) -> None:
        self.kept = InvokeConfigs(MemoryStore(), LoopClock(), self.named)
        self.alias_model = AliasModel(lambda name: self.function(name).arn, self.versions)

    def functions(self) -> Sequence[FunctionView]:
        return self.views

    def function(self, name: str, qualifier: str = "") -> FunctionView:
        for view in self.views:
            own = name.removeprefix(f"{view.arn}:") if name.startswith(f"{view.arn}:") else ""
            known = own or name in {view.name, view.arn}
            if known and self._has(view.arn, own or qualifier):
                return view
        raise ApiError(ApiErrorType.MISSING, f"Function not found: {name}")

    def _has(self, arn: str, qualifier: str) -> bool:
        return qualifier in {"", "$LATEST", *self.versions} or (arn, qualifier) in self.alias_model.kept

    @property
    def aliases(self) -> AliasModel:
        return self.alias_model

    @property
    def configs(self) -> InvokeConfigs:
        return self.kept

    def named(self, name: str, qualifier: str) -> NamedFunction:
        view = self.function(name, qualifier)
        arn = f"{view.arn}:{qualifier}" if qualifier else view.arn
        return NamedFunction(FunctionPlan(name=view.name, invoker=view.invoker), arn)

    async def queued_calls(self, function: str, request: CallsRequest) -> CallPage:
        self.listed.append((function, request))
        self.function(function)
        there = [each for each in self.waiting if request.after is None or request.after.before(each)]
        fitting = [each for each in there if request.state in {None, state_of(each)}]
        page = fitting[: request.limit]
        return CallPage(
            function=function,
            calls=tuple(shown(each, PayloadRoom().show if request.payloads else None) for each in page),
            next=marker_of(place_behind(page)) if len(page) < len(fitting) else None,
            payloads=request.payloads,
        )

    async def enqueue(self, call: FunctionCall, *, trace_header: str = "") -> str:
        self.function(call.function, call.qualifier)
        if self.refuses is not None:
            raise self.refuses
        self.put.append((call, trace_header))
        return REQUEST_ID

    async def call(self, call: FunctionCall, *, trace_header: str = "") -> FunctionAnswer:
        self.asked.append(call)
        return FunctionAnswer(
            request_id=REQUEST_ID, outcome=self.answer(call), duration_s=0.0123, log_tail=self.log
        )
