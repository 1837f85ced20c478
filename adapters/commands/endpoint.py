"""Owns how commands reach Lambda's API, a daemon's or AWS's own, and how they report what went wrong."""

from collections.abc import Callable
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from adapters.aws.region import SESSION_VARIABLES
from adapters.commands.remedies import of_answer, of_failure
from poller.commands.shared import FAILED, print_problems

CALL_S_MAX = 30.0
TRIES_MAX = 3
AWS = "AWS"
"""Stands for AWS itself where a daemon has an address."""
ANY_REGION = "us-east-1"
"""Signs requests to a daemon when nothing names a region; a daemon serves mappings of all regions."""


class Failed(Exception):
    """The command cannot do what it was asked to; each text says why and what to do, on a line of its own."""


def lambda_client(url: str | None, region: str | None) -> Any:
    """A client of the API at `url` (None: AWS's own), with the usual credentials; raises Failed.

    A daemon answers reads without a signature, so that no credentials are needed for those.
    """
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
            # A daemon is next door: a proxy for the internet does not know it.
            options["proxies"] = {}
            if session.get_credentials() is None:
                options["signature_version"] = UNSIGNED
        if not place:
            raise Failed("no region; give --region or set AWS_REGION")
        return session.create_client("lambda", region_name=place, endpoint_url=url, config=Config(**options))
    except (BotoCoreError, ValueError) as error:
        raise Failed(f"no client of {url or 'AWS'}: {error}") from error


def ended(action: Callable[[], None], where: str) -> int:
    """Carries a command out; returns the exit status. What goes wrong is told on stderr."""
    try:
        action()
    except Failed as error:
        print_problems(map(str, error.args))
    except ClientError as error:
        found = error.response.get("Error", {})
        code = str(found.get("Code", "Unknown"))
        print_problems(
            [_joined(f"{where}: {code}: {found.get('Message', '')}", of_answer(code, aws=where == AWS))]
        )
    except ParamValidationError as error:
        # Nothing was sent to anybody.
        print_problems([_joined(str(error), of_failure(error))])
    except BotoCoreError as error:
        print_problems([_joined(f"{where}: {error}", of_failure(error))])
    else:
        return 0
    return FAILED


def _joined(text: str, remedy: str) -> str:
    return f"{text.strip().removesuffix('.')}; {remedy}" if remedy else text.strip()
