"""Owns what a report of a defect must say of an installation: versions, extras, plug-ins. No folder, variable or name of a machine is in it."""

import json
import platform
import re
import sqlite3
import ssl
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points, version
from typing import Any

from poller.commands.root.plugin_commands import COMMANDS
from poller.plugins import GROUPS

DISTRIBUTION = "esm-poller"
BENEATH = ("botocore", "pydantic-core")
"""Libraries that we do not require ourselves, and that decide what those that we require do."""
_EXTRA = re.compile(r"""extra == ['"]([^'"]+)['"]""")
_NAME = re.compile(r"[\w.-]+")


def facts() -> dict[str, Any]:
    """Returns what is installed here, as `poller version --json` prints it."""
    own = distribution(DISTRIBUTION)
    required = dict(_requirements(own))
    return {
        "poller": own.version,
        "installed": {"by": (own.read_text("INSTALLER") or "unknown").strip(), "from": _origin(own)},
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
            "virtual_environment": sys.prefix != sys.base_prefix,
        },
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "distribution": _operating_system(),
            "libc": " ".join(platform.libc_ver()).strip() or None,
        },
        "event_loop": f"uvloop {version('uvloop')}",
        "libraries": {
            **{name: _version(name) for name in sorted([*required.get("", ()), *BENEATH])},
            "sqlite": sqlite3.sqlite_version,
            "openssl": ssl.OPENSSL_VERSION,
        },
        "extras": {
            name: {"installed": None not in (found := list(map(_version, needed))), "libraries": dict(zip(needed, found, strict=True))}
            for name, needed in sorted(required.items())
            if name
        },
        "plug_ins": {kind: _plugins(group) for kind, group in sorted({**GROUPS, "commands": COMMANDS}.items())},
    }  # fmt: skip


def described(found: Mapping[str, Any]) -> str:
    """Returns the facts as lines for people."""
    python, system, installed = found["python"], found["platform"], found["installed"]
    where = [
        f"{system['system']} {system['release']} {system['machine']}",
        system["distribution"],
        system["libc"],
    ]
    extras = [
        f"{name} (installed)" if each["installed"] else f"{name} (pip install '{DISTRIBUTION}[{name}]')"
        for name, each in found["extras"].items()
    ]
    own = f"{DISTRIBUTION} {found['poller']}"
    lines = [
        f"poller {found['poller']}, installed by {installed['by']} from {installed['from']}",
        f"Python {python['version']}, {python['implementation']}",
        ", ".join(filter(None, where)),
        f"event loop: {found['event_loop']}",
        "libraries: " + ", ".join(f"{name} {is_version}" for name, is_version in found["libraries"].items()),
        "extras: " + ", ".join(extras),
    ]  # fmt: skip
    for kind, plugins in found["plug_ins"].items():
        named = [name if brought == own else f"{name} ({brought})" for name, brought in plugins.items()]
        lines.append(f"{kind}: " + ", ".join(named))
    return "\n".join(lines)


def _requirements(own: Distribution) -> Iterator[tuple[str, list[str]]]:
    """Yields the names of what is required, by the extra that requires it; the extra is empty for what is always required."""
    by_extra: dict[str, list[str]] = {
        "": [],
        **{each: [] for each in own.metadata.get_all("Provides-Extra") or []},
    }
    for text in own.requires or []:
        extra = _EXTRA.search(text)
        name = _NAME.match(text)
        assert name
        by_extra[extra[1] if extra else ""].append(name[0])
    yield from by_extra.items()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _origin(own: Distribution) -> str:
    """What the installer was given: a checkout that stays in use, a file or URL, or a name that an index resolved."""
    text = own.read_text("direct_url.json")
    if text is None:
        return "an index"
    return "a checkout" if json.loads(text).get("dir_info", {}).get("editable") else "a file"


def _operating_system() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _plugins(group: str) -> dict[str, str | None]:
    """The names of a group's plug-ins, each with the distribution that brings it."""
    return {
        point.name: f"{point.dist.name} {point.dist.version}" if point.dist else None
        for point in sorted(entry_points(group=group), key=lambda each: each.name)
    }
