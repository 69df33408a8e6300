"""How tests read a command line without running it."""

import typer

from melanoma_lib.cli import build


def parsed(words: list[str]) -> dict:
    """The values that a command would be given; wrong usage raises."""
    command, rest = typer.main.get_command(build()), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command.make_context("command", rest).params


def command_names() -> list[str]:
    """The first words of all commands."""
    return list(typer.main.get_command(build()).commands)
