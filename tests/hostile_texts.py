"""Owns texts that somebody outside could send, each of which has broken a log, a terminal or an encoder somewhere."""

import sys
import unicodedata

HOSTILE: dict[str, str] = {
    "nothing": "",
    "blanks": " \t \n ",
    "a NUL": "a\0b",
    "every control character": "".join(map(chr, [*range(32), *range(127, 160)])),
    "a line that looks like one of the log": 'no\n{"level":"info","event":"forged"}',
    "a carriage return": "100%\rgone",
    "line separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "colours": "\x1b[31;1mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[1;1H \x9b31m",
    "an unfinished escape sequence": "\x1b[" + "9" * 50,
    "half of a surrogate pair": "a\ud800b\udfffc",
    "two halves that are no pair": "\udc00\ud800",
    "bytes that were no UTF-8": b"\xff\xfe caf\xe9".decode("utf-8", "surrogateescape"),
    "writing turned round": "\u202egnp.exe\u202c \u2066x\u2069 \ufeff",
    "combined without end": "e" + "\u0301" * 2000,
    "no character": "\uffff\ufffe\U0010ffff",
    "outside the first plane": "\U0001f468\u200d\U0001f469\u200d\U0001f467 𝕏",
    "long": "x" * 100_000,
    "long without end of a colour": "\x1b[" * 50_000,
    "long and all control characters": "\x01" * 100_000,
    "many lines": "line\n" * 20_000,
    "percent and braces": "%s %d %(a)s {0} {} {a.b} ${HOME} $(id) `id`",
    "markup": '<script>alert("x")</script> [bold]x[/bold] &amp; \\u0000 \\n',
    "a number": str(10**400),
    "a megabyte": "no room for {" * 80_000,
    "a megabyte of the word secret": "secret" * 175_000,
    "no width": "pay\u200bpal\u2060.com \u200e\u200f\u061c\u2066\u00ad \U000e0041\U000e007f",
    "joiners without end": "\u200d" * 50_000,
    "the end of an exposition": '"} 1\n# EOF\npoller_forged_total{a="\\',
    "a row of a table": "│ ok │\n└────┘",
}
"""Name to text."""

_KEY_BODY = "\n".join("MIIEow" + "IBAAKCAQEAx9Zq" * 4 + str(10 + number) for number in range(25))
PRIVATE_KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{_KEY_BODY}\n-----END RSA PRIVATE KEY-----"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION_TOKEN = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQDq4GdB7T5fn"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IifQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"

CREDENTIALS: dict[str, tuple[str, str]] = {
    "AWS access key": ("key AKIAIOSFODNN7EXAMPLE is unknown", "AKIAIOSFODNN7EXAMPLE"),
    "AWS secret in the environment": (f"AWS_SECRET_ACCESS_KEY={SECRET_KEY}", SECRET_KEY),
    "AWS secret in JSON": (f'{{"SecretAccessKey": "{SECRET_KEY}"}}', SECRET_KEY),
    "AWS secret alone": (f"signed with {SECRET_KEY} and refused", SECRET_KEY),
    "AWS session token": (f"aws_session_token = {SESSION_TOKEN}", SESSION_TOKEN),
    "AWS session token alone": (f"credentials ASIAIOSFODNN7EXAMPLE {SESSION_TOKEN}", SESSION_TOKEN),
    "AWS signature in a query": ("GET /?X-Amz-Signature=0f1e2dc0ffee&X-Amz-Date=1", "0f1e2dc0ffee"),
    "AWS token in a query": ("https://h/?X-Amz-Security-Token=FwoGZXIvYXdzE&a=1", "FwoGZXIvYXdzE"),
    "AWS signature in a header": (
        "Authorization: AWS4-HMAC-SHA256 Credential=A/B, Signature=c0ffee0f1e2d",
        "c0ffee0f1e2d",
    ),
    "bearer": ("sent Bearer abcdefgh12345", "abcdefgh12345"),
    "bearer in a dictionary": ("{'authorization': 'Bearer abcdefgh12345', 'a': 1}", "abcdefgh12345"),
    "basic": ("proxy said no to Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
    "JWT": (f"cannot decode {JWT}: expired", "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"),
    "JWT's claims": (f"cannot decode {JWT}", "eyJzdWIiOiJib2IifQ"),
    "URL": ("cannot reach https://user:hunter2@proxy.local/x", "hunter2"),
    "URL without user": ("redis://:hunter2@cache:6379/0 is down", "hunter2"),
    "URL with odd password": ("amqps://user:hun@ter2@mq/vhost", "ter2"),
    "URL with slash in the password": ("postgres://user:hun/ter2@db:5432/x", "ter2"),
    "connection string": ("Server=db;User Id=sa;Password=hunter2;Database=x", "hunter2"),
    "connection string of MySQL": ("dial root:hunter2@tcp(127.0.0.1:3306)/db", "hunter2"),
    "connection string of MongoDB": ("mongodb+srv://app:hunter2@cluster0.example.net/db", "hunter2"),
    "connection string of JDBC": ("jdbc:postgresql://db/x?user=a&password=hunter2&ssl=true", "hunter2"),
    "connection string of Azure": ("AccountName=a;AccountKey=aHVudGVyMg==;EndpointSuffix=x", "aHVudGVyMg"),
    "token in a query": ("POST https://h/x?token=hunter2&a=1", "hunter2"),
    "signature in a query": ("POST https://h/x?sv=2024&sig=hunter2%3D&se=1", "hunter2"),
    "hook of Slack": ("POST https://hooks.slack.com/services/T00/B00/hunter2hunter2", "hunter2hunter2"),
    "hook of Discord": ("https://discord.com/api/webhooks/123/hunter2-hunter2?wait=true", "hunter2-hunter2"),
    "bot of Telegram": ("https://api.telegram.org/bot123:hunter2hunter2/send", "hunter2hunter2"),
    "token of Slack": ("invalid xoxb-123456789012-abcdefGHIJKL", "abcdefGHIJKL"),
    "token of GitHub": ("git clone failed: ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghij"),
    "private key": (f"cannot load {PRIVATE_KEY}: wrong passphrase", "IBAAKCAQEAx9Zq"),
    "private key in JSON": (repr(PRIVATE_KEY), "IBAAKCAQEAx9Zq"),
    "private key without its end": (PRIVATE_KEY[:700], "IBAAKCAQEAx9Zq"),
    "password": ("login with password=hunter2 failed", "hunter2"),
    "password in quotes": ("db password='hunter2 has blanks' failed", "has blanks"),
    "password in JSON": ('{"user": "bob", "password": "hunter2 \\" quoted", "n": 1}', "quoted"),
    "password in JSON in JSON": ('{"body": "{\\"password\\": \\"hunter2\\", \\"n\\": 1}"}', "hunter2"),
    "password in YAML": ("user: bob\npassword: hunter2\nhost: db", "hunter2"),
    "password of letters": ("user: bob, password: swordfish", "swordfish"),
    "password in XML": ("<user>bob</user><password>hunter2</password>", "hunter2"),
    "password in Ruby": ("{:password=>'hunter2', :n=>1}", "hunter2"),
    "API key": ("api_key: sk-hunter2hunter2", "hunter2hunter2"),
    "API key in a header": ("x-api-key: hunter2hunter2", "hunter2hunter2"),
    "API key in JSON": ('{"apiKey":"hunter2"}', "hunter2"),
    "client secret": ("client_secret=hunter2&grant_type=x", "hunter2"),
    "cookie": ("Cookie: session=hunter2; theme=dark", "hunter2"),
    "cookie that is set": ("Set-Cookie: sid=hunter2; Path=/; HttpOnly", "hunter2"),
    "option": ("exec: deploy --password hunter2 --host db", "hunter2"),
    "option of letters": ("usage of deploy --password swordfish --host db failed", "swordfish"),
    "option in quotes": ("ran 'deploy' '--db-password' 'hunter2 x' and failed", "hunter2"),
    "option in a list": (
        "CalledProcessError: Command '['deploy', '--token', 'hunter2']' returned 1",
        "hunter2",
    ),
    "option with one dash": ("deploy -secret hunter2 failed", "hunter2"),
    "option of MySQL": ("mysqldump -uroot -phunter2 shop failed", "hunter2"),
    "option of sshpass": ("sshpass -p hunter2 ssh host", "hunter2"),
    "option of redis-cli": ("redis-cli -h cache -a hunter2 ping", "hunter2"),
    "user of curl": ("curl -u bob:hunter2 https://h/", "hunter2"),
    "code in a query": ("GET https://h/callback?code=hunter2&lang=en", "hunter2"),
    "key in a query": ("GET https://h/maps?lang=en&key=hunter2", "hunter2"),
    "password that is": ('its password is "hunter2 x", it says', "hunter2"),
    "password that was set": ("reset the password to hunter2", "hunter2"),
    "password that is of letters and digits": ("the token is hunter2 now", "hunter2"),
    "password broken by NUL": ("pass\0word=hunter2", "hunter2"),
    "password of two bytes a character": ("password=hunter2".encode("utf-16le").decode("latin-1"), "hunter2"),
    "password on the next line": ("password=\nhunter2", "hunter2"),
    "password on a line that goes on": ("export PASSWORD=\\\n  hunter2", "hunter2"),
}
"""Name to a text with a credential in it, and the part that nobody may see."""

READABLE = (
    "ExpiredToken: The security token included in the request is expired",
    "KeyError: 'password'",
    "ValueError: password: is too short for this user",
    "secret: Field required",
    "SyntaxError: Unexpected token } in JSON at position 4",
    "User: arn:aws:sts::111122223333:assumed-role/r/s is not authorized to perform: secretsmanager:GetSecretValue on"
    " resource: arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/db-Ab1",
    "arn:aws:lambda:eu-west-1:111122223333:function:orders:live",
    "https://sqs.eu-west-1.amazonaws.com/111122223333/orders.fifo",
    "http://localhost:8080/x and http://[::1]:8080/ refuse connections",
    "shardId-000000000000 at 49590338271490256608559692538361571095921575989136588898",
    "5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb01 token_count=5 tokenizer: none",
    "Basic authentication failed for bob@example.com",
    "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709 differs",
    '  File "/var/task/passwords.py", line 3, in reset_password',
    "functions.a.headers.Authorization: not a text; put it in quotes",
    "functions.a.headers.Authorization: unknown setting; remove it",
    "functions.a.cookie: is missing; add it",
    "api.access_keys_file: value 'keys.yaml': line 3: orders: the secret is read as a number, not as a text; put it in quotes",
    "error: the option --password is required",
    "--password must not be empty",
    "--token: not set",
    "the token is invalid, the password is too short, the secret was not found",
    "the token is 15 characters long",
    "https://h/x?code=404&lang=en",
    "https://console.aws.amazon.com/states/home?region=eu-west-1#/executions",
    "https://h/2015-03-31/functions/function/invocations",
    "https://h/v1/5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb01/da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "https://sqs.eu-west-1.amazonaws.com/111122223333/OrdersStackOrdersQueue4A7E3555",
    "http://localhost:4566/000000000000/OrdersStack-OrdersQueue4A7E3555-aBcDeF123456 and table/OrdersTable4A7E3555aBcDeF",
    "docker run -p 8080:80 -e A=b image",
)
"""Texts of errors, arguments and ids that help and hold no credential."""


def fit(text: str) -> bool:
    """Whether a text is one line of nothing but characters that files hold and terminals print as they are."""
    wrong = {"Cc", "Cs", "Zl", "Zp"}
    turned = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return not any(
        unicodedata.category(char) in wrong or unicodedata.bidirectional(char) in turned for char in text
    )


ANY_CHARACTER = [chr(code) for code in range(sys.maxunicode + 1)]
"""Every character there is, halves of surrogate pairs included."""
