"""`cli.md`: every command with its arguments, read from the parsers: their own help differs by version of Python."""

from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator

from minichat.cli.main import parser
from tests.reference.markdown import code, page, table

_INTRODUCTION = """\
`minichat COMMAND --help` says the same. A command ends with 0 when it did what it says, with 1 when what it looked at
is not as it should be, and with 2 and one sentence on stderr when it could not do its work. With `--local` or `--state`
it is for a local stack, with `--stack NAME` for the deployment of that stack on AWS, whose outputs it reads, and else
for the deployment that the [settings](settings.md) of its environment describe."""


def write() -> str:
    """The page."""
    blocks = ["# `minichat`", _INTRODUCTION]
    for command, said in _commands(parser()):
        rows = [(_name(one), one.help or "") for one in _arguments(command)]
        blocks += [f"## {code(command.prog)}", _sentence(said, command.prog)]
        blocks += [table(("argument", "what"), rows)] if rows else []
    return page(*blocks)


def without_help() -> list[str]:
    """The arguments that say nothing of themselves."""
    return [
        f"{command.prog} {one.dest}"
        for command, _ in _commands(parser())
        for one in _arguments(command)
        if not one.help or "%(" in one.help
    ]


def _commands(above: ArgumentParser) -> Iterator[tuple[ArgumentParser, str]]:
    """Each command below, and what it says of itself."""
    for action in above._actions:
        if isinstance(action, _SubParsersAction):
            short = {one.dest: one.help or "" for one in action._choices_actions}
            for name, command in action.choices.items():
                yield command, command.description or short[name]
                yield from _commands(command)


def _arguments(command: ArgumentParser) -> list[Action]:
    told = [one for one in command._actions if not isinstance(one, _SubParsersAction)]
    return [one for one in told if "--help" not in one.option_strings]


def _name(one: Action) -> str:
    value = one.metavar if isinstance(one.metavar, str) else one.dest.upper()
    if one.choices is not None:
        value = "|".join(map(str, one.choices))
    if not one.option_strings:
        return code(f"[{value}]" if one.nargs == "?" else value)
    names = ", ".join(code(name if one.nargs == 0 else f"{name} {value}") for name in one.option_strings)
    return f"{names}, must be given" if one.required else names


def _sentence(said: str, prog: str) -> str:
    text = " ".join(said.removeprefix(f"`{prog}`:").split())
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
