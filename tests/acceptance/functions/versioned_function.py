"""Two versions of a function, and a function that is asked before calls move from one to the other."""

from typing import Any


def old(event: Any, context: Any) -> Any:
    """Answers which version it is, by the code and by the context."""
    return {"code": "old", "version": context.function_version, "arn": context.invoked_function_arn}


def new(event: Any, context: Any) -> Any:
    """The same, but it fails if the event says so."""
    if event.get("fail"):
        raise ValueError("no such article")
    return {"code": "new", "version": context.function_version, "arn": context.invoked_function_arn}


def check(event: Any, context: Any) -> str:
    """Lets every shift go on."""
    return "Succeeded" if event["DeploymentId"] else "Failed"
