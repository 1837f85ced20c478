"""Owns how the asynchronous calls of a function are written: AWS's members of an event invoke config, as SAM templates have them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from poller.config.field_types import IdentityName, number
from poller.config.sections.section import Section
from poller.domain.functions.queued_calls import AGE_S_MAX, AGE_S_MIN, RETRIES_MAX, AsyncPolicy
from poller.domain.plan import destination_plugin

DEAD_LETTER_SERVICES = frozenset({"sqs", "sns"})
KINDS = Literal["SQS", "SNS", "Lambda", "EventBridge", "S3Bucket"]
QUALIFIER_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"


def _destination(text: str) -> str:
    try:
        destination_plugin(text)
    except ValueError:
        raise ValueError(
            "is no destination; write the ARN of a queue, topic, bucket, function or event bus, or a URL"
        ) from None
    return text


def _dead_letter(text: str) -> str:
    if _destination(text) and destination_plugin(text) not in DEAD_LETTER_SERVICES:
        raise ValueError("is no ARN of a queue or a topic; others belong to DestinationConfig.OnFailure")
    return text


type CallDestinationName = Annotated[str, AfterValidator(_destination)]
type DeadLetterArn = Annotated[str, AfterValidator(_dead_letter)]


class CallTarget(Section):
    """One destination. `Type` is SAM's, and without effect."""

    Destination: CallDestinationName | None = None
    Type: KINDS | None = None


class CallTargets(Section):
    """The destinations of calls that are over."""

    OnSuccess: CallTarget = CallTarget()
    OnFailure: CallTarget = CallTarget()


class EventInvokeConfig(Section):
    """How the asynchronous calls of a function are tried, and where their documents go."""

    MaximumRetryAttempts: Annotated[int, BeforeValidator(number), Field(ge=0, le=RETRIES_MAX)] = RETRIES_MAX
    MaximumEventAgeInSeconds: Annotated[int, BeforeValidator(number), Field(ge=AGE_S_MIN, le=AGE_S_MAX)] = (
        AGE_S_MAX
    )
    DestinationConfig: CallTargets = CallTargets()
    identity: IdentityName | None = None

    def policy(self, dead_letter: str | None, identity: str | None) -> AsyncPolicy:
        """The same for rules. `dead_letter` is the function's, and so is `identity`, as whom destinations are called if none is named here."""
        return AsyncPolicy(
            retries_max=self.MaximumRetryAttempts,
            age_s_max=self.MaximumEventAgeInSeconds,
            on_success=self.DestinationConfig.OnSuccess.Destination,
            on_failure=self.DestinationConfig.OnFailure.Destination,
            dead_letter=dead_letter,
            identity=self.identity or identity,
        )


type Qualifier = Annotated[str, Field(pattern=QUALIFIER_PATTERN)]
