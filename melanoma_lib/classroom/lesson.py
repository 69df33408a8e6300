"""A numbered notebook as the kit sees it: where it lies, its tags, its parameters, and what may be put in their place."""

import ast
import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from pydantic import TypeAdapter, ValidationError

from melanoma_lib.errors import LessonError
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
        try:
            statements = {statement.targets[0].id: statement.value for statement in ast.parse(cells[0].source).body}
            values = {name: ast.literal_eval(value) for name, value in statements.items()}
            return TypeAdapter(dict[str, Scalar]).validate_python(values, strict=True)
        except (AttributeError, ValueError) as error:
            text = f"{self.path}: a parameter is one name and a plain scalar, such as seed = 0; got:\n{cells[0].source}"
            raise LessonError(text) from error

    def with_defaults(self, given: Mapping[str, Any]) -> dict[str, Scalar]:
        """All parameters, the given ones in their place, read as the type of the default, for which None and "None" stand.

        A LessonError or SettingsError if a name is unknown, a value does not fit, or ``run_dir`` names none; nothing is run.
        """
        values = dict(self.parameters)
        for name, value in given.items():
            if name not in values:
                known = ", ".join(f"{name} = {default!r}" for name, default in self.parameters.items())
                raise LessonError(f"{self.name} has no parameter {name}; it has: {known}")
            default = values[name]
            try:
                values[name] = default if value in (None, "None") else TypeAdapter(type(default)).validate_python(value)
            except ValidationError as error:
                expected = f"expects {type(default).__name__}, like its default {default!r}"
                raise LessonError(f"{self.name}: parameter {name} {expected}; got {value!r}") from error
        run_dir = values.get("run_dir")
        if run_dir and run_dir != self.parameters["run_dir"] and not (project_dir() / run_dir).is_dir():
            raise LessonError(f"{self.name}: run_dir names a run to read, and there is none in {project_dir() / run_dir}")
        Settings.from_parameters(**{name: value for name, value in values.items() if name in Settings.model_fields})
        return values


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def without_tests(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy less the cells tagged ``remove-cell``, which test the lesson and teach nothing."""
    shown = copy.deepcopy(notebook)
    shown.cells = [cell for cell in shown.cells if "remove-cell" not in tags_of(cell)]
    return shown


def find_lessons(names: Iterable[str] = (), folder: Path | None = None, studies: bool = False) -> list[Lesson]:
    """Lessons by names, numbers (``03``) or paths, without any all; ``studies`` too where these are named and asked for."""
    folder = project_dir() / "notebooks" if folder is None else folder
    others = sorted(folder.glob("studies/*.ipynb")) if studies else ()
    return [Lesson(path) for path in numbered(names, folder, "00_start_here.ipynb", others)]


def numbered(names: Iterable[str], folder: Path, example: str, others: Iterable[Path] = ()) -> list[Path]:
    """Files that are called as ``example`` is, or, of these and the others, those of the given names, numbers or paths."""
    paths = [path for path in sorted(folder.glob(f"*{Path(example).suffix}")) if NUMBERED.fullmatch(path.stem)]
    if not paths:
        raise LessonError(f"nothing found in {folder}: expected files such as {example}; run from the project's folder")
    found, known = [], [*paths, *others]
    for name in names:
        fitting = [path for path in known if path.stem == Path(name).stem or path.stem.startswith(f"{name}_")]
        if len(fitting) != 1:
            stems = ", ".join(path.stem for path in known)
            raise LessonError(f"{len(fitting)} files fit {name!r}, expected one; there are: {stems}")
        found += fitting
    return found or paths
