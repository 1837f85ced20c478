"""Owns how commands reach Lambda's API, of a daemon or of AWS, and how they report errors."""

from collections.abc import Callable
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from adapters.aws.region import SESSION_VARIABLES
from adapters.commands.remedies import ANSWER_UNCLEAR, of_answer, of_failure
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import url_problem

CALL_S_MAX = 30.0
TRIES_MAX = 3
AWS = "AWS"
"""The place that error texts name instead of a daemon's address."""
ANY_REGION = "us-east-1"
"""The region for which requests to a daemon are signed if none is set. A daemon serves mappings of all regions."""


class Failed(Exception):
    """The command cannot be carried out. Each text is one line that says why, and what to do."""


def lambda_client(url: str | None, region: str | None) -> Any:
    """Makes a client of the API at `url` (None: that of AWS) with the usual credentials; raises Failed.

    Requests to a daemon are unsigned if there are no credentials. Reads that are open need none.
    """
    if url is not None and (problem := url_problem(url)):
        raise Failed(problem)
    session = botocore.session.get_session(SESSION_VARIABLES)
    options: dict[str, Any] = {
        "connect_timeout": CALL_S_MAX,
        "read_timeout": CALL_S_MAX,
        "retries": {"mode": "standard", "total_max_attempts": TRIES_MAX},
        "user_agent_extra": "esm-poller",
    }
    try:
        place = region or session.get_config_variable("region")
        if url is not None:
            place = place or ANY_REGION
            # A daemon is in the local network, which a proxy for the internet may not reach.
            options["proxies"] = {}
            if session.get_credentials() is None:
                options["signature_version"] = UNSIGNED
        if not place:
            raise Failed("no region; give --region or set AWS_REGION")
        return session.create_client("lambda", region_name=place, endpoint_url=url, config=Config(**options))
    except (BotoCoreError, ValueError) as error:
        raise Failed(f"no client of {url or 'AWS'}: {error}") from error


def run_command(action: Callable[[], None], where: str) -> int:
    """Carries out a command and returns the exit status; reports errors on stderr."""
    try:
        action()
    except Failed as error:
        print_problems(map(str, error.args))
    except ClientError as error:
        found = error.response.get("Error", {})
        code = str(found.get("Code", "Unknown"))
        print_problems(
            [_with_remedy(f"{where}: {code}: {found.get('Message', '')}", of_answer(code, aws=where == AWS))]
        )
    except ParamValidationError as error:
        # No request was sent.
        print_problems([_with_remedy(str(error), of_failure(error))])
    except BotoCoreError as error:
        print_problems([_with_remedy(f"{where}: {error}", of_failure(error))])
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # The library's parsers raise these for an answer that is not of the form of the API.
        print_problems([f"{where}: the answer cannot be read: {type(error).__name__}; {ANSWER_UNCLEAR}"])
    else:
        return 0
    return FAILED


def _with_remedy(text: str, remedy: str) -> str:
    return f"{text.strip().removesuffix('.')}; {remedy}" if remedy else text.strip()
