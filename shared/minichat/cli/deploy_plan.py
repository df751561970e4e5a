"""What `sam deploy` will be told: the parameters, and where to, from `samconfig.toml` and the command line."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minichat.local.tables import load_template
from minichat.settings import SettingsError

TEMPLATE = "template.yaml"
_ONE = re.compile(
    r" +(?:ParameterKey=)?(?P<name>\w+)(?:,ParameterValue)?="
    r"""(?P<value>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?:\\.|[^ "'\\])+)"""
)
_TEXT = re.compile(f"(?:{re.sub(r'[?]P<[a-z]+>', '?:', _ONE.pattern)})+ *")


@dataclass(frozen=True, slots=True)
class Plan:
    """A deployment that is about to be made.

    `given` are the parameters that somebody chose; SAM puts the built code into `bucket`, or makes one.
    """

    template: Mapping[str, Any]
    given: Mapping[str, str]
    stack: str
    region: str | None
    profile: str | None
    bucket: str | None
    makes_bucket: bool
    capabilities: Sequence[str]

    @property
    def declared(self) -> Mapping[str, Mapping[str, Any]]:
        """The template's parameters, each with what it may be."""
        declared: Mapping[str, Mapping[str, Any]] = self.template["Parameters"]
        return declared

    @property
    def parameters(self) -> dict[str, str]:
        """Every parameter's value as CloudFormation will take it; one without a value is the empty text."""
        defaults = {name: str(one.get("Default", "")) for name, one in self.declared.items()}
        return {**defaults, **{name: value for name, value in self.given.items() if name in defaults}}


def read(root: Path, config: Path, environment: str, overrides: Sequence[str]) -> Plan:
    """The plan of an environment of a SAM configuration file, for the template of this checkout.

    `overrides` (`Name=value`) take the place of all parameters of the file, as they do for `sam deploy`.
    Raises SettingsError when the file cannot be read, lacks the environment, or says what SAM would not understand.
    """
    said = _section(config, environment)
    return Plan(
        template=load_template(root / TEMPLATE),
        given=named(overrides or said.get("parameter_overrides", ())),
        stack=str(said.get("stack_name", "")),
        region=said.get("region"),
        profile=said.get("profile"),
        bucket=said.get("s3_bucket"),
        makes_bucket=bool(said.get("resolve_s3")),
        capabilities=_words(said.get("capabilities", ())),
    )


def _section(config: Path, environment: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config: cannot read {config}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"--config: {config} cannot be parsed: {error}") from None
    named = {name: one for name, one in document.items() if isinstance(one, dict) and "deploy" in one}
    if environment not in named:
        raise SettingsError(f"--env: {config} has no environment {environment!r}, only {', '.join(sorted(named))}.")
    commands = named[environment]
    return {**_parameters(commands.get("global")), **_parameters(commands["deploy"])}


def _parameters(command: Any) -> dict[str, Any]:
    found = command.get("parameters", {}) if isinstance(command, dict) else {}
    return found if isinstance(found, dict) else {}


def named(overrides: Any) -> dict[str, str]:
    """Parameters by name, of a table, or of texts as SAM reads them: `Name=value`, or the longer
    `ParameterKey=Name,ParameterValue=value`, where quotes hold a value together.
    """
    if isinstance(overrides, Mapping):
        return {name: ",".join(map(str, one)) if isinstance(one, list) else str(one) for name, one in overrides.items()}
    named: dict[str, str] = {}
    for text in [overrides] if isinstance(overrides, str) else overrides:
        if _TEXT.fullmatch(f" {text}") is None:
            raise SettingsError(
                f"parameter_overrides: {text!r} is not Name=value as SAM reads it: it ends a value without "
                "quotes at the first quote or space. A table takes values as they are (docs/deploy.md)."
            )
        for found in _ONE.finditer(f" {text}"):
            value = found["value"]
            if value[0] in "\"'":
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            named[found["name"]] = value
    return named


def _words(said: Any) -> list[str]:
    """A list as SAM reads it: as it is, or as the words of one text."""
    return said.split() if isinstance(said, str) else [str(one) for one in said]
