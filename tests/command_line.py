"""How tests read a command line without running it."""

import typer

from melanoma_lib.cli import build
from melanoma_lib.settings import Settings


def parsed(words: list[str]) -> dict:
    """The values that a command would be given; wrong usage raises."""
    command, rest = typer.main.get_command(build()), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command.make_context("command", rest).params


def words_of(settings: Settings) -> list[str]:
    """The words that give these settings on the command line."""
    values = settings.model_dump(mode="json", exclude={"image_dirs"}).items()
    given = {name: value for name, value in values if value is not None or name == "alpha"}
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def command_names() -> list[str]:
    """The first words of all commands."""
    return list(typer.main.get_command(build()).commands)
