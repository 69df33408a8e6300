"""Names and words of settings: unknown ones are refused and ill-typed ones explained, wherever they come from."""

import os
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from dotenv import dotenv_values
from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings

from melanoma_lib.errors import SettingsError

ENV_FILE = ".env"
ENV_PREFIX = "MELANOMA_"
TEST_ENV_PREFIX = "MELANOMA_TEST_"  # belongs to the test suite, never to a setting
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]


def allows_none(annotation: Any) -> bool:
    """Whether a field of this type may be None."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return is_union and type(None) in typing.get_args(annotation)


def reject_unknown_variables(cls: type[BaseSettings]) -> None:
    """Refuse variables of the environment and lines of ``.env`` that no field of ``cls`` is named after.

    Raises:
        SettingsError: if there is one, or ``.env`` is not UTF-8.
    """
    known = {f"{ENV_PREFIX}{name}".upper() for name in cls.model_fields}
    try:
        in_file = dotenv_values(ENV_FILE)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{ENV_FILE}: expected lines NAME=value in UTF-8, got {error}") from error
    in_environment = {name.upper() for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    reject_unknown((name for name in in_environment if not name.startswith(TEST_ENV_PREFIX)), known, "environment variable")
    reject_unknown((name.upper() for name in in_file), known, f"name in {ENV_FILE}")


def reject_unknown(names: Iterable[str], known: Iterable[str], kind: str) -> None:
    """Refuse names that are not known.

    Raises:
        SettingsError: with those that are not, and all that are.
    """
    if unknown := sorted(set(names) - set(known)):
        raise SettingsError(f"unknown {kind} {', '.join(unknown)}; known: {', '.join(sorted(known))}. Remove or correct it.")


def explain_invalid(error: ValidationError, cls: type[BaseSettings]) -> str:
    """What pydantic found wrong, a line each, with what came."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown setting; known: {', '.join(sorted(cls.model_fields))}")
        else:
            lines.append(f"{name}: {problem['msg']}; got {problem['input']!r}" if problem["loc"] else problem["msg"])
    return "settings not valid:\n  " + "\n  ".join(lines)
