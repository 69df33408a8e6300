"""A numbered notebook as the kit sees it: where it lies, its tags, its parameters, and what may be put in their place."""

import ast
import copy
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from pydantic import TypeAdapter, ValidationError

from melanoma_lib.errors import LessonError, SettingsError
from melanoma_lib.settings import Settings, project_dir

NUMBERED = re.compile(r"\d\d_[a-z0-9_]+")
Scalar = str | int | float | bool


@dataclass(frozen=True)
class Lesson:
    """One notebook file."""

    path: Path

    @property
    def name(self) -> str:
        """File name without its ending, such as ``03_training``."""
        return self.path.stem

    @cached_property
    def notebook(self) -> nbformat.NotebookNode:
        """The notebook as it lies on disk; a LessonError if the file is none."""
        try:
            return nbformat.read(self.path, as_version=4)
        except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
            raise LessonError(f"{self.path}: expected a Jupyter notebook, got {type(error).__name__}: {error}") from error

    def cells(self, tag: str) -> list[nbformat.NotebookNode]:
        """Cells that carry a tag."""
        return [cell for cell in self.notebook.cells if tag in tags_of(cell)]

    @cached_property
    def parameters(self) -> dict[str, Scalar]:
        """Names and default values that the cell tagged ``parameters`` assigns: plain scalars, or a LessonError."""
        cells = self.cells("parameters")
        if len(cells) != 1:
            raise LessonError(f"{self.path}: expected one cell tagged 'parameters', got {len(cells)}")
        values = {}
        for statement in ast.parse(cells[0].source).body:
            try:
                (target,) = statement.targets
                values[target.id] = TypeAdapter(Scalar).validate_python(ast.literal_eval(statement.value), strict=True)
            except (AttributeError, ValueError) as error:
                code = ast.unparse(statement)
                text = f"{self.path}: a parameter is one name and a plain scalar, such as seed = 0; got {code!r}"
                raise LessonError(text) from error
        return values

    def with_defaults(self, given: Mapping[str, Any]) -> dict[str, Scalar]:
        """All parameters, with the given ones checked and put in their place; nothing is run for it.

        Text, as from a command line, is read as the type of the parameter's default; None stands for the default.

        Raises:
            LessonError: if a name is unknown, a value does not fit, or a given ``run_dir`` does not exist.
        """
        known = self.parameters
        if unknown := sorted(set(given) - set(known)):
            listing = ", ".join(f"{name} = {value!r}" for name, value in known.items())
            raise LessonError(f"{self.name} has no parameter {', '.join(unknown)}; it has: {listing}")
        values = known | {name: self._read(name, value) for name, value in given.items() if value not in (None, "None")}
        run_dir = values.get("run_dir")
        if run_dir and run_dir != known["run_dir"] and not os.path.isdir(folder := project_dir() / run_dir):  # noqa: PTH112
            raise LessonError(
                f"{self.name}: run_dir names a run to read, and there is none in {folder}; leave it empty to derive it from the "
                "settings. Where new runs go is runs_dir"
            )
        settings = {name: value for name, value in values.items() if name in Settings.model_fields}
        try:
            Settings.from_parameters(**settings)
        except SettingsError as error:
            raise LessonError(f"{self.name}: {error}") from error
        return values

    def _read(self, name: str, value: Any) -> Scalar:
        default = self.parameters[name]
        try:
            return TypeAdapter(type(default)).validate_python(value, strict=not isinstance(value, str))
        except ValidationError as error:
            expected = "yes or no" if isinstance(default, bool) else type(default).__name__
            text = f"{self.name}: parameter {name} expects {expected}, like its default {default!r}; got {value!r}"
            raise LessonError(text) from error


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def without_tests(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy less the cells tagged ``remove-cell``, which test the lesson and teach nothing."""
    shown = copy.deepcopy(notebook)
    shown.cells = [cell for cell in shown.cells if "remove-cell" not in tags_of(cell)]
    return shown


def find_lessons(names: Iterable[str] = (), folder: Path | None = None, studies: bool = False) -> list[Lesson]:
    """Lessons by names, numbers (``03``) or paths, without any all; a LessonError if one fits no lesson or several.

    Args:
        names: of the lessons.
        folder: where to look; by default the project's ``notebooks``.
        studies: also find the notebooks in its ``studies``, where they are named.
    """
    folder = project_dir() / "notebooks" if folder is None else folder
    lessons = numbered(folder, "lesson", "00_start_here.ipynb")
    named = lessons + sorted(folder.glob("studies/*.ipynb")) * studies
    return [Lesson(path) for path in chosen(names, named) or lessons]


def numbered(folder: Path, kind: str, example: str) -> list[Path]:
    """Files called as ``example`` is, by their numbers, or a LessonError."""
    paths = [path for path in sorted(folder.glob(f"*{Path(example).suffix}")) if NUMBERED.fullmatch(path.stem)]
    if not paths:
        raise LessonError(f"no {kind} in {folder}: expected files such as {example}; run from the project's folder")
    return paths


def chosen(names: Iterable[str], paths: list[Path]) -> list[Path]:
    """The files of these names, numbers (``03``) or paths, in this order; a LessonError if one fits none or several."""
    found = []
    for name in names:
        fitting = [path for path in paths if path.stem == Path(name).stem or path.stem.startswith(f"{name}_")]
        if len(fitting) != 1:
            known = ", ".join(path.stem for path in paths)
            raise LessonError(f"{len(fitting)} files fit {name!r}, expected one; there are: {known}")
        found += fitting
    return found
