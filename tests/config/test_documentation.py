"""The examples of the documentation work as they stand: configurations pass the check, command lines the real parser."""

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import botocore
import pytest
import typer
import yaml

from adapters.commands.consumers.declared import app as consumers_app
from adapters.commands.mappings import app as mappings_app
from adapters.control.access.credential_entries import read_tokens
from adapters.control.access.credential_files import parsed
from poller.cli import application
from poller.commands.root.plugin_commands import COMMANDS
from poller.commands.shared import LoadablePlugins
from poller.config.loader import examine
from poller.config.settings import FileMapping, Settings
from poller.config.yaml_files import parse_document
from tests.adapters.tls import authority_in, client_in
from tests.start_folders import start_in

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
SECRETS = b"AKIDOPERATOR: a-long-random-text\n"
STREAM = {"FunctionName": "orders", "EventSourceArn": "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"}


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Page and text of every block of code in these languages."""
    found = []
    for page in PAGES:
        for number, match in enumerate(FENCE.finditer(page.read_text())):
            if match[1] in languages:
                found.append((f"{page.stem}-{number}", match[2]))
    return found


def configurations(document: dict[str, Any]) -> dict[str, Any] | None:
    """What of a document is a daemon's configuration; None if nothing is."""
    if "config" in document or "mappingResources" in document or isinstance(document.get("store"), dict):
        # Values of the chart, which has a store of its own.
        found: dict[str, Any] = document.get("config", {})
        return {"store": "memory://", **found}
    if document.keys() <= FileMapping.model_fields.keys():
        # Some members of a mapping.
        return {"mappings": [{**STREAM, "StartingPosition": "LATEST", **document}]}
    return document if set(document) & set(Settings.model_fields) else None


def placed(folder: Path, text: str) -> str:
    """The text with the files that it names moved to `folder`, where they are made."""
    (folder / "shop").mkdir()
    (folder / "shop" / "handlers.py").write_text("raise SystemExit\n")
    (folder / "app.py").write_text("raise SystemExit\n")
    for code in ("functions/orders", "releases/orders-1", "releases/orders-2"):
        (folder / code).mkdir(parents=True)
        (folder / code / "app.py").write_text("raise SystemExit\n")
    (interpreter := folder / "srv" / "reports" / "env" / "bin" / "python").parent.mkdir(parents=True)
    interpreter.touch(mode=0o755)
    (folder / "var" / "lib" / "poller" / "failed").mkdir(parents=True)
    (folder / "etc" / "ssl").mkdir(parents=True)
    (folder / "etc" / "poller").mkdir()
    shutil.copy(Path(botocore.__file__).with_name("cacert.pem"), folder / "etc" / "ssl" / "internal.pem")
    (folder / "etc" / "poller" / "webhooks").mkdir()
    (folder / "etc" / "poller" / "webhooks" / "orders").write_text(f"whsec_{'A' * 32}\n")
    if "client_cert_file" in text:
        certificate, key = client_in(folder, authority_in(folder))
        (folder / "etc" / "poller" / "client").mkdir()
        certificate.rename(folder / "etc" / "poller" / "client" / "tls.crt")
        key.rename(folder / "etc" / "poller" / "client" / "tls.key")
    for name in ("access-keys.yaml", "tokens.yaml"):
        for place in (folder, folder / "etc" / "poller"):
            (place / name).write_bytes(SECRETS)
    return re.sub(r"(?<=[ /:\[])/(etc|srv|var)/", rf"{folder}/\1/", text)


FOREIGN = {"apiVersion", "rules", "data", "healthCheckExprs"}
"""What manifests of Kubernetes, rules of the Prometheus adapter, and settings of Argo CD and Flux have: deploy/checks looks at manifests."""
TEMPLATE = "AWSTemplateFormatVersion"
"""How a template begins, which is no configuration: poller init reads it."""
YAML = [each for each in blocks("yaml", "yml", "json") if not each[1].startswith(TEMPLATE)]


@pytest.mark.parametrize("text", [text for _, text in YAML], ids=[name for name, _ in YAML])
def test_an_example_of_a_configuration_passes_the_check(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = parse_document(text, name="example")
    if document.keys() & FOREIGN:
        return
    configured = configurations(document)
    if configured is None and text.startswith("{"):
        # What a program answers or logs.
        return
    if configured is None:
        assert list(parsed(text.encode(), read_tokens, place="example")) == list(document)
        return
    start_in(tmp_path, monkeypatch)
    file = tmp_path / "poller.yaml"
    file.write_text(placed(tmp_path, text if configured is document else yaml.safe_dump(configured)))
    found = examine(file, {}, LoadablePlugins())
    assert (found.problems, found.lacking) == ([], [])


def commands(text: str) -> Iterator[list[str]]:
    """The words of every line of a shell that calls poller."""
    for line in text.replace("\\\n", " ").splitlines():
        call = re.match(r" *(?:\$ )?(?:kubectl .* -- )?poller (.*)", line)
        if call:
            words = shlex.split(call[1], comments=True)
            ends = [at for at, word in enumerate(words) if word in {"|", ">", "2>&1", "&&"}]
            yield words[: min(ends, default=len(words))]


PLUGIN_COMMANDS = {"consumers": consumers_app, "mappings": mappings_app}


def read_by(command: Any, words: list[str], name: str) -> None:
    """Reads words as the command does when it is called; raises what it raises for those that it does not take."""
    with command.make_context(name, list(words)) as context:
        if hasattr(command, "resolve_command"):
            rest = [*getattr(context, "_protected_args", []), *context.args]
            if not rest:
                # `poller operations` does something without a command below it.
                assert command.invoke_without_command
            elif rest[0] in PLUGIN_COMMANDS:
                # A plug-in's commands read their own words.
                read_by(typer.main.get_command(PLUGIN_COMMANDS[rest[0]]), rest[1:], rest[0])
            else:
                below, found, left = command.resolve_command(context, rest)
                read_by(found, left, below)


LINES = [
    (name, words)
    for name, text in [
        *(
            (name, text)
            for name, text in blocks("sh", "console")
            if not re.search(r"^\$ ", text, re.MULTILINE)
        ),
        *(
            (name, "\n".join(re.findall(r"^\$ (?:.*\\\n)*.*$", text, re.MULTILINE)))
            for name, text in blocks("console")
        ),
    ]
    for words in commands(text)
]


@pytest.mark.parametrize(
    "words", [words for _, words in LINES], ids=[f"{name}:{' '.join(words)[:40]}" for name, words in LINES]
)
def test_a_command_line_of_the_documentation_is_read(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLLER_CONFIG", "poller.yaml")
    read_by(typer.main.get_command(application(entry_points(group=COMMANDS))), words, "poller")


def test_the_parser_refuses_what_no_command_takes() -> None:
    command = typer.main.get_command(application(entry_points(group=COMMANDS)))
    for words in (["check", "--confg", "x"], ["mappings", "lst"], ["status", "--every-s", "often"]):
        with pytest.raises(Exception, match=r"No such|not a valid|valid number"):
            read_by(command, words, "poller")


def test_every_variable_of_a_terraform_example_is_declared() -> None:
    found = blocks("hcl")
    assert found
    for _, text in found:
        declared = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
        assert set(re.findall(r"\bvar\.(\w+)", text)) <= declared


def test_both_kinds_of_examples_are_found() -> None:
    assert len(YAML) >= 15
    assert len(LINES) >= 10


def test_the_index_names_every_page() -> None:
    docs = ROOT / "docs"
    links = re.findall(r"\]\(([^)#]+)\)", (docs / "README.md").read_text())
    named = {(docs / link).resolve() for link in links}
    pages = {page for page in docs.rglob("*.md") if page.parent.name != "runbooks" and page.parent != docs}
    assert pages - named == set()
    assert docs / "operate" / "runbooks" in named
