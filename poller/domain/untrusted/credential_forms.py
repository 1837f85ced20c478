"""Owns how credentials are recognized by their form alone, whatever stands around them.

A form must be so special that ids, hashes, names and sequence numbers of ordinary texts do not have it. Repeats are possessive or
counted, so that the search is linear in the text. None needs more than its first 60 characters, since a text may be cut there.
"""

import re
from collections.abc import Callable

HIDDEN = "[hidden]"


def _scheme(found: re.Match[str]) -> str:
    word = found[2]
    return found[0] if word.islower() and word.isalpha() else f"{found[1]}{HIDDEN}"


def _mixed(word: str) -> bool:
    """Whether a word has letters of both cases and digits, as random texts have."""
    return all(any(map(kind, word)) for kind in (str.isupper, str.islower, str.isdigit))


def hide_drawn(found: re.Match[str]) -> str:
    """The replacement of a text that ends with a credential, the first group if there is one, if that was drawn by lot."""
    drawn = found[found.lastindex or 0]
    return found[0].removesuffix(drawn) + HIDDEN if _mixed(drawn) else found[0]


_DRAWN = re.compile(r"(?<=/)[A-Za-z0-9_]{20,}+(?![\w-]|[.:]\w)")
"""A part of a URL's path that may be random. Names that AWS's tools generate have dashes."""


def _without_drawn(found: re.Match[str]) -> str:
    url = found[0]
    return url if ".amazonaws.com" in url else _DRAWN.sub(hide_drawn, url)


type _Form = tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]]

FORMS: tuple[_Form, ...] = (
    (
        ("slack", "discord", "office", "telegram", "zapier"),
        re.compile(
            r"((?:hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/(?:v\d{1,3}/)?webhooks/"
            r"|office(?:365)?\.com/webhook\w{0,4}/|api\.telegram\.org/(?:file/)?bot|hooks\.zapier\.com/hooks/))"
            r"""[^\s"'<>]++""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        ("earer", "asic", "EARER", "ASIC", "ApiKey", "apikey", "Api-Key", "api-key", "SSWS"),
        re.compile(r"(\b(?:bearer|basic|api-?key|ssws)\s++)([A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE),
        _scheme,
    ),
    (("eyJ",), re.compile(r"(?<![A-Za-z0-9_-])eyJ[\w-]{8,}+(?:\.[\w-]*+){0,4}"), HIDDEN),
    (
        ("AKIA", "ASIA", "AROA", "AIDA", "ABIA", "ACCA"),
        re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{12,}+"),
        HIDDEN,
    ),
    (
        ("IQoJ", "FwoG", "FQoG", "AQoD"),
        re.compile(r"(?<![\w+/=-])(?:IQoJ|FwoG|FQoG|AQoD)[\w+/=%-]{20,}+"),
        HIDDEN,
    ),
    (
        ("@tcp(", "@unix("),
        re.compile(r"""(?<![^\s"'=])([\w.-]{1,64}:)[^\s@"']{1,128}(?=@(?:tcp|unix)\()"""),
        rf"\1{HIDDEN}",
    ),
    (
        ("?", "&"),
        re.compile(
            r"([?&](?:code|key|auth|otp|pin|ticket|state|assertion|samlresponse|hash|hmac|sid|k)=)[^\s&#\"'<>\[\]]{4,}+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        ("mysql", "maria", "sshpass", "mongo", "sqlcmd"),
        re.compile(r"""(?<![^\s"'])(-[pP] ?+["']?+)(?!-)[^\s"']++"""),
        rf"\1{HIDDEN}",
    ),
    (
        ("docker", "podman", "nerdctl", "helm", "oras", "skopeo", "crane"),
        re.compile(
            r"""((?<![^\s"'])login(?:["',\s]{1,4}(?!-p)[^\s"',]{1,128}){0,8}+["',\s]{1,4}-p[=\s"',]{0,4}+)(?!-)[^\s"']++"""
        ),
        rf"\1{HIDDEN}",
    ),
    (
        ("AUTH", "auth", "Auth"),
        re.compile(
            r"(\bAUTH(?:ENTICATE)?\s++(?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|EXTERNAL)\s++)([A-Za-z0-9+/=]{8,}+)",
            re.IGNORECASE,
        ),
        _scheme,
    ),
    (
        ("Private-Lines",),
        re.compile(r"(Private-Lines:[ \t]{0,8}[0-9]{1,6})(?:\s++[A-Za-z0-9+/=…]{1,128}+(?=\s|\Z))++"),
        rf"\1 {HIDDEN}",
    ),
    (("redis-cli",), re.compile(r"""(?<![^\s"'])(-a ?+["']?+)(?!-)[^\s"']++"""), rf"\1{HIDDEN}"),
    (
        ("curl", "wget", "http"),
        re.compile(r"""(?<![^\s"'])((?:-[uU]|--(?:proxy-)?user)[ =]?+["']?+[\w.@-]{0,64}:)[^\s"']++"""),
        rf"\1{HIDDEN}",
    ),
    (("http",), re.compile(r"""https?://[^\s"'<>]++"""), _without_drawn),
    (
        ("identified", "IDENTIFIED", "assword", "ASSWORD"),
        re.compile(
            r"""(\b(?:identified\s++(?:with\s++\w{1,64}\s++)?by(?:\s++password)?|password)\s++)(?:'[^'\r\n]*+'?|"[^"\r\n]*+"?)""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        ("login",),
        re.compile(r"(\blogin\s++\S{1,64}\s++password\s++)\S++"),
        rf"\1{HIDDEN}",
    ),
    (
        ("sqlplus", "jdbc:oracle"),
        re.compile(
            r"""((?:\bsqlplus\s++(?:-\w{1,9}\s++){0,4}|jdbc:oracle:\w{1,9}:)[\w$#.-]{1,64}/)[^\s@"']{1,128}(?=@)"""
        ),
        rf"\1{HIDDEN}",
    ),
    (
        ("auth",),
        re.compile(
            r"""(\\{0,8}"auth\\{0,8}"\s{0,8}:\s{0,8}\\{0,8}")(?![a-z]++\\{0,8}")[A-Za-z0-9+/=]{8,}+"""
        ),
        rf"\1{HIDDEN}",
    ),
)
"""Credentials that are recognized by their form: texts of which one must be present, the pattern, and the replacement."""

_HEX = "[0-9a-fA-F]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_TOKENS = (
    # AWS: Bedrock's API keys, Marketplace Web Service.
    r"ABSK[A-Za-z0-9+/=]{40,}+",
    r"bedrock-api-key-[\w+/=-]{20,}+",
    rf"amzn\.mws\.{_UUID}",
    # Hosts of code and of packages.
    r"gh[opsur]_\w{20,}+",
    r"github_pat_\w{20,}+",
    r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|oas|ffct|wt)-[\w.-]{16,}+",
    r"GR1348941[\w-]{20,}+",
    r"AT(?:ATT|CTT)3xFf[\w=-]{20,}+",
    r"ATBB[A-Za-z0-9]{28,}+",
    r"npm_\w{30,}+",
    r"pypi-AgE[\w-]{40,}+",
    rf"rubygems_{_HEX}{{40,}}+",
    r"cio[A-Za-z0-9]{32}(?!\w)",
    r"oy2[a-z0-9]{43}(?!\w)",
    r"dckr_(?:pat|oat)_[\w-]{20,}+",
    r"AKCp[A-Za-z0-9]{50,}+",
    r"cmVmdGtu[A-Za-z0-9]{40,}+",
    # Clouds and their services.
    r"AIza[\w-]{30,}+",
    r"ya29\.[\w-]{20,}+",
    r"GOCSPX-[\w-]{20,}+",
    r"1//0[\w-]{30,}+",
    r"[\w~.-]{3}[0-9]Q~[\w~.-]{30,}+",
    rf"do[opr]_v1_{_HEX}{{40,}}+",
    r"HRKU-[\w-]{20,}+",
    rf"dapi{_HEX}{{32}}(?:-[0-9])?(?!\w)",
    r"f(?:o1|m1|m2)_[\w+/=-]{30,}+",
    r"sb[ps]_[0-9a-f]{40}(?!\w)",
    r"pscale_(?:tkn|pw|oauth)_[\w.-]{20,}+",
    r"hv[sbr]\.[\w-]{20,}+",
    r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{20,}+",
    r"pul-[0-9a-f]{40}(?!\w)",
    r"tskey-[a-z]{2,12}-[\w-]{16,}+",
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{20,}+",
    r"v1\.0-[0-9a-f]{24}-[0-9a-f]{20,}+",
    r"ion_[A-Za-z0-9]{40,}+",
    # Models.
    r"sk-[\w-]{20,}+",
    r"hf_[A-Za-z0-9]{30,}+",
    r"r8_[A-Za-z0-9]{30,}+",
    r"gsk_[A-Za-z0-9]{40,}+",
    r"xai-[A-Za-z0-9]{40,}+",
    r"pplx-[A-Za-z0-9]{40,}+",
    r"lsv2_(?:pt|sk)_[0-9a-f]{32}\w*+",
    r"pcsk_\w{40,}+",
    # Money.
    r"[sr]k_(?:live|test)_\w{8,}+",
    r"whsec_[\w+/=-]{24,}+",
    r"sq0(?:atp|csp|idp)-[\w-]{20,}+",
    r"EAA[A-Za-z0-9]{57,}+",
    rf"shp(?:at|ca|pa|ss)_{_HEX}{{32}}(?!\w)",
    r"(?:rzp|duffel)_(?:live|test)_[\w-]{14,}+",
    rf"access-(?:production|sandbox|development)-{_UUID}",
    r"access_token\$(?:production|sandbox)\$\w{12,20}\$[0-9a-f]{32}",
    rf"FLWSECK(?:_TEST)?-{_HEX}{{12,32}}-X",
    r"EZ[AT]K[A-Za-z0-9]{50,}+",
    # Talk and mail.
    r"xox[a-z][.-][\w.-]{8,}+",
    r"xapp-[0-9]-[\w-]{20,}+",
    r"SG\.[\w-]{16,}+\.[\w-]{16,}+",
    r"[0-9]{8,10}:AA[\w-]{33}(?![\w-])",
    r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{25,}+",
    rf"pat-[a-z]{{2}}[0-9]-{_UUID}",
    r"dG9rO[A-Za-z0-9]{40,}+",
    # Watching and building.
    r"NR(?:AK|II|JS|AL)-[A-Za-z0-9-]{20,}+",
    r"gl(?:c|sa)_[\w+/=]{32,}+",
    r"sntr(?:ys|yu)_[\w+/=-]{32,}+",
    r"dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{20,}+",
    r"bk(?:ua|ct|at)_[0-9a-f]{40}(?!\w)",
    r"CCIP(?:AT|RJ)_\w{20,}+",
    r"sq[pua]_[0-9a-f]{40}(?!\w)",
    r"snyk_[a-z]{3}\.[\w.-]{20,}+",
    # Notes, tasks, designs and keys.
    r"lin_api_[A-Za-z0-9]{30,}+",
    r"(?:secret|ntn)_[A-Za-z0-9]{40,}+",
    r"figd_[\w-]{30,}+",
    r"PMAK-[0-9a-f]{24}-[0-9a-f]{20,}+",
    r"pat[A-Za-z0-9]{14}\.[0-9a-f]{30,}+",
    r"[0-2]/[0-9]{16}:[0-9a-f]{32}",
    r"CFPAT-[\w-]{40,}+",
    r"A3-[A-Z0-9]{6}-[A-Z0-9]{6,11}(?:-[A-Z0-9]{5,6}){3,5}",
    r"ops_eyJ[\w-]{40,}+",
    r"AGE-SECRET-KEY-1[0-9A-Z]{40,}+",
    # Files of keys in base64, and passwords as systems keep them.
    r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]{20,}+",
    r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{22,}+",
    r"\$(?:1|5|6|7|y|gy|apr1|sha1|scrypt|argon2(?:id|i|d))\$[\w$./=,+-]{28,}+",
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9_-])(?:{'|'.join(_TOKENS)})")
"""Tokens of services that begin, as a rule, with letters by which the service finds leaked ones."""
_RUN = re.compile(r"(?<![\w$~.,:/+=-])[\w$~.,:/+=-]{16,}+")
"""Where a token may be. Most words are shorter, and to search them for tokens would take half of all time."""
TOKEN_CHARS_MIN = 16
"""No token is shorter."""

KEYS = (
    re.compile(r"(?<![A-Za-z0-9/+=_-])[A-Za-z0-9+][A-Za-z0-9/+]{39}(?![A-Za-z0-9/+=_-])"),
    re.compile(r"\[hidden\]/([A-Za-z0-9+][A-Za-z0-9/+]{39})(?![A-Za-z0-9/+=_-])"),
    # Behind a sign of equality there may be the path of an object as well, which has more parts.
    re.compile(r"=(?!(?:[A-Za-z0-9+]*+/){4})([A-Za-z0-9+][A-Za-z0-9/+]{39})(?![A-Za-z0-9/+=_-])"),
    # A key of 64 bytes in base64, such as those of Azure's storage. The text may have been cut in its middle.
    re.compile(r"(?<![A-Za-z0-9/+_-])[A-Za-z0-9/+]{60,86}+(?:==(?![A-Za-z0-9/+=_-])|=?…)"),
    # A line of a private key whose first line is in another text.
    re.compile(r"^[ \t]*+[A-Za-z0-9+/]{60,76}={0,2}[ \t]*+$", re.MULTILINE),
)
"""Patterns of texts that are keys if they have letters of both cases and digits."""
KEY_CHARS_MIN = 40


def hide_tokens(text: str) -> str:
    """`text` with each token of a service replaced by `HIDDEN`."""
    return _RUN.sub(_without_tokens, text)


def _without_tokens(found: re.Match[str]) -> str:
    return _TOKEN.sub(HIDDEN, found[0])
