"""Credentials in texts: each kind is hidden wherever it stands, helpful errors stay as they are, and the work is linear."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.config_errors.error_messages import _TOLD
from poller.domain.untrusted.credential_forms import FORMS
from poller.domain.untrusted.credential_names import ALONE, JOINED, KEYS, KEYS_NOT_IDS, NAMES, OWNERS
from poller.domain.untrusted.credentials import HIDDEN, hide, hide_path
from poller.domain.untrusted.texts import ends_of, line_of, lines_of
from poller.output.function_log import FunctionLine, FunctionLog
from tests.bounds.growth import assert_linear
from tests.hostile_texts import CREDENTIALS, HOSTILE, PRIVATE_KEY, READABLE, TOKENS, fit

credentials = pytest.mark.parametrize(("text", "secret"), CREDENTIALS.values(), ids=CREDENTIALS.keys())
PIECES = [
    *(text for text, _ in CREDENTIALS.values()),
    *READABLE,
    *(text for text in HOSTILE.values() if len(text) < 200),
]
LONG = 6_000
"""At this length one quadratic search takes longer than all linear ones together."""
ADVERSARIAL = (
    "secret",
    "secret ",
    "secret=",
    "secret:'",
    '\\"secret',
    'token": "',
    "://",
    "://a:b",
    "://a@",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ",
    "-----END PRIVATE KEY-----",
    "bearer ",
    "basic   ",
    "eyJ",
    "eyJhbGciOi.",
    "AKIA",
    "a:@tcp(",
    "hooks.slack.com/services/",
    "A1" * 20 + " ",
    "A1" * 35 + "\n",
    "\u200d",
    "\x1b[",
    "\x1b]",
    "\\",
    " ",
    "'",
    "--token ",
    "-",
    "--password-",
    "token is ",
    "password to 'x",
    "?code=",
    "mysql -p ",
    "redis-cli -a ",
    "http curl -u a",
    "http://h/" + "aB1" * 7,
    "http/-",
    "authorization: not ",
    'password: {"S": "',
    'passwords: ["a1", ',
    '"password", "value"',
    "('password', ",
    'name="password"\n\n',
    "<password a='b' ",
    "</password",
    "[password]",
    "password -> ",
    "password: |\n",
    "Pwd={",
    "identified by ",
    "password 'x",
    "login a password ",
    "sqlplus -a ",
    "jdbc:oracle:a:b/",
    '"auth":"',
    "$1$",
    "1//0",
    "12345678:AA",
    "M.a-",
    "aB1",
    "ghp_",
    "aaa1Q~",
    "p\0a\0",
    "\0",
    "a:b@",
    "//a:b",
    ":\\/\\/a:b",
    "http://a:b 'c",
    "https%3A%2F%2Fa",
    "login -u a ",
    "docker login",
    "AUTH PLAIN ",
    "Private-Lines: 1\nAAAA\n",
    "cookie: a=1\n b=2",
    "password for a: ",
    "password=[a",
    "---- BEGIN\n",
    "a=b/",
)
WORDS_OF_THE_SEARCH = sorted(
    {
        *(name.replace(" ", "_") for name in NAMES),
        *JOINED,
        *ALONE,
        *(f"{owner}{name}" for owner in OWNERS[::8] for name in JOINED),
        *(f"{owner}-key" for owner in (*KEYS, *KEYS_NOT_IDS)),
        *(needed.lower() for each, _, _ in FORMS for needed in each),
        "userPass",
        "user:password",
        "http://a:b",
        "https%3A%2F%2Fa",
    }
)
SIGNS = (
    "=",
    ":",
    ":a:",
    "=>",
    "!=",
    "==",
    ":=",
    "->",
    ">",
    "%3d",
    "\\u003d",
    "@",
    "/",
    "//",
    "=1",
    "'",
    "[",
    ".",
    "-",
)
WORD_CHARS = 6_000
"""At this length a quadratic search of one word takes several times as long as a linear one."""
SUSPECT = 6
"""What takes this many times as long as the median for one repeat is measured again, at two lengths."""


@credentials
def test_a_credential_is_hidden_on_one_line_and_on_several(text: str, secret: str) -> None:
    assert secret not in lines_of(text, chars_max=4000)
    assert HIDDEN in lines_of(text, chars_max=4000)
    assert secret not in line_of(f"Error: {text}; and more", chars_max=4000)


@pytest.mark.parametrize(
    "around", ["it said {} here", "a={}", '{{"a": "{}"}}', "[{}]", "https://h/{}", "({})", "a: {}"]
)
@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
def test_a_token_of_a_service_is_hidden_wherever_it_stands(token: str, around: str) -> None:
    text = line_of(around.format(token), chars_max=4000)
    assert HIDDEN in text
    assert token[:12] not in text
    assert token[-12:] not in text


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
def test_no_part_of_a_token_is_left_where_a_text_is_cut(token: str) -> None:
    for chars_max in (60, 90):
        for times in range(chars_max + 1):
            assert token[:12] not in line_of(f"{'x ' * times} {token}; tail", chars_max=chars_max)


@credentials
@pytest.mark.parametrize("filler", ["x ", "\x1b[0m", "password=zzzzzzzzzzzzzzzzzzzzz "])
def test_no_part_of_a_credential_is_left_where_a_text_is_cut(text: str, secret: str, filler: str) -> None:
    for chars_max in (60, 90):
        for times in range(2 * chars_max // len(filler) + 1):
            shown = line_of(f"{filler * times} {text}{'; tail' * 100}", chars_max=chars_max)
            assert secret[:6] not in shown, (chars_max, times)


@pytest.mark.parametrize("text", READABLE)
def test_an_error_that_helps_stays_as_it_is(text: str) -> None:
    assert lines_of(text, chars_max=4000) == text


def test_a_key_that_goes_over_the_lines_of_a_stack_trace_is_hidden() -> None:
    lines = ["before", *PRIVATE_KEY.split("\n"), "after"]
    assert ends_of(lines, lines_max=100, chars_max=100) == ("before", HIDDEN, "after")
    for lines_max in range(1, 30):
        assert "IBAAKC" not in "".join(ends_of(lines, lines_max=lines_max, chars_max=100))


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=20)), max_size=6), st.integers(10, 400))
@settings(max_examples=150, deadline=None)
def test_any_mixture_is_clean_bounded_and_stays_as_it_is_when_it_is_cleaned_again(
    pieces: list[str], chars_max: int
) -> None:
    text = lines_of(" ".join(pieces), chars_max=chars_max)
    assert len(text) <= chars_max
    assert fit(text.replace("\n", " "))
    text.encode()
    assert hide(hide(text)) == hide(text)


def test_hiding_is_linear_in_the_text() -> None:
    def texts(chars: int) -> list[str]:
        return [unit * (chars // len(unit)) for unit in ADVERSARIAL]

    def clean(given: list[str]) -> None:
        for text in given:
            lines_of(text, chars_max=10**9)

    assert_linear(clean, texts, LONG)


def _line(text: str) -> None:
    line_of(text, chars_max=10**9)


def _lines(text: str) -> None:
    lines_of(text, chars_max=10**9)


@pytest.mark.parametrize(
    ("around", "clean", "signs"),
    [
        ("{}{}", hide, SIGNS),
        ("{1}{0}", _line, SIGNS[::4]),
        ("{}{}a", _lines, SIGNS[1::4]),
        ("a{}{}'", hide, SIGNS[::4]),
    ],
)
def test_hiding_is_linear_in_repeats_of_any_name_sign_or_form_without_blanks(
    around: str, clean: Callable[[str], object], signs: tuple[str, ...]
) -> None:
    units = [around.format(name, sign) for name in WORDS_OF_THE_SEARCH for sign in signs]
    taken = {unit: len(unit) * seconds_of(clean, repeats(unit, WORD_CHARS)) for unit in units}
    usual = statistics.median(taken.values())
    for unit in (unit for unit, seconds in taken.items() if seconds > SUSPECT * usual):
        assert_linear(clean, partial(repeats, unit), WORD_CHARS // 2)


def test_a_list_of_texts_that_begin_lists_is_read_once() -> None:
    assert_linear(hide, partial(repeats, "passwords are [\\'1',"), WORD_CHARS)


def repeats(unit: str, chars: int) -> str:
    return unit * (chars // len(unit))


def seconds_of(clean: Callable[[str], object], text: str) -> float:
    began = time.thread_time()
    clean(text)
    return time.thread_time() - began


def test_a_part_of_a_path_that_was_drawn_by_lot_is_hidden() -> None:
    drawn = "Hunter2Hunter2Hunter2"
    url = "https://alerts.example.com/hooks/T00"
    assert hide(f"POST {url}/{drawn}: 500") == f"POST {url}/{HIDDEN}: 500"
    assert hide(f"POST {url}/{drawn}/x?a=1") == f"POST {url}/{HIDDEN}/x?a=1"
    assert hide(f"{url}/x and /var/lib/{drawn}") == f"{url}/x and /var/lib/{drawn}"


def test_half_a_page_of_the_word_secret_is_read_in_no_time() -> None:
    assert hide("secret" * 400) == "secret" * 400


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://user:pw@alerts.example.com:8443/hook/9f8e7d?token=x",
            "https://alerts.example.com:8443/[hidden]",
        ),
        ("https://alerts.example.com/", "https://alerts.example.com"),
        ("http://h:1?sig=x", "http://h:1/[hidden]"),
        ("arn:aws:sqs:eu-west-1:111122223333:dlq", "arn:aws:sqs:eu-west-1:111122223333:dlq"),
        ("file:///var/lib/poller/failed", "file:///var/lib/poller/failed"),
        ("", ""),
    ],
)
def test_of_a_web_address_only_the_place_is_shown(url: str, shown: str) -> None:
    assert hide_path(url) == shown


@pytest.mark.parametrize(
    "name", ["Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "password", "env.DB_SECRET"]
)
@pytest.mark.parametrize("wrong", sorted({wrong for wrong, _ in _TOLD.values()}))
def test_what_is_wrong_with_a_secret_setting_stays_readable(name: str, wrong: str) -> None:
    line = f"poller.yaml: functions.a.headers.{name}: {wrong}; write it"
    assert line_of(line, chars_max=4000) == line


def test_a_value_on_the_line_after_its_name_is_hidden() -> None:
    told: list[FunctionLine] = []

    class Lines:
        def line(self, line: FunctionLine) -> None:
            told.append(line)

        def dropped(self, function: str, lines: int) -> None:
            raise AssertionError

    log = FunctionLog(Lines())
    for function, text in [
        ("a", "export DB_PASSWORD= \\"),
        ("b", "not a value"),
        ("a", "  hunter2"),
        ("a", "hunter2 is shown"),
        ("a", "the password:"),
        ("a", "it is too short"),
        ("a", "orders:"),
        ("a", "three of them"),
    ]:
        log.write(function, text)
    assert [each.text for each in told] == [
        "export DB_PASSWORD= [hidden]",
        "not a value",
        "  [hidden]",
        "hunter2 is shown",
        "the password:",
        "[hidden] is too short",
        "orders:",
        "three of them",
    ]
