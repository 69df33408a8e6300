"""Command line: ``python -m melanoma_lib COMMAND``; every setting is a flag, an environment variable or a line of ``.env``.

A command is a function of plain values. Its ``settings`` become flags; what its other parameters mean is said once, in ``HELP``.
"""

import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from melanoma_lib import __version__, commands
from melanoma_lib.errors import KitError, SettingsError
from melanoma_lib.settings import Settings

PANELS = {
    "Data": ("doctor", "data_fetch", "data_audit"),
    "Train and judge": ("train", "runs", "evaluate", "compare", "errors", "explain"),
    "Hand on": ("predict", "app", "export", "card"),
    "Teach": ("notebooks_run", "notebooks_sweep", "notebooks_handout", "notebooks_site", "notebooks_exercises",
              "notebooks_refresh", "slides_build"),
}  # fmt: skip
GROUPS = {"data": "Fetch or audit a source.", "notebooks": "Run and check lessons.", "slides": "Fill and render the slide decks."}
# The settings that a command takes as flags, and the heading that their help has from each of some settings on.
ALL = tuple(Settings.model_fields)
FLAGS = {
    "train": ALL, "evaluate": ("data_dir", "image_dirs", "missing_images", "n_patients", "data_seed", "runs_dir", "cache_dir"),
    "explain": ("data_dir", "image_dirs", "runs_dir"), "card": ("runs_dir",), "export": ("runs_dir",),
    "app": ("run_dir", "runs_dir"), "predict": ("runs_dir", "progress"), "runs": ("runs_dir",),
    "errors": ("data_dir", "image_dirs", "runs_dir"), "data_fetch": ("data_dir",),
    "data_audit": ("data_dir", "image_dirs", "n_patients", "data_seed", "image_size", "progress"),
}  # fmt: skip
HEADINGS = {"profile": "Data", "backbone": "Model", "loss": "Training", "threshold_rule": "Evaluation", "runs_dir": "Places"}
POSITIONAL = {"run": Path | None, "runs": list[Path], "files": list[Path], "names": list[str], "name": str, "source": str}
HELP = {
    "run": "run directory, by default the latest that is no demonstration, else the reference run",
    "files": "images, folders, or tables of image, age, sex and site; alone, a table names images relative to its folder",
    "model": "run directory or exported file; may also come last; by default the run that other commands take",
    "names": "such as 03_training or 03, by default all; run also takes a study, such as ablations",
    "source": "synthetic, ham10000, isic2017, isic2018, isic2019, isic2020 or isic_archive; of evaluate: another collection",
    "config": "settings.json of a finished run, in place of environment, .env and profile; flags win",
    "jobs": "folds or points at a time",
    "n": "of each kind",
    "backend": "of joblib, for folds or points; of the app, onnx answers from the exported file",
    "scheduler": "dask: address of a running scheduler; by default a cluster on this machine",
    "tta": "average the eight flips and turns of each image",
    "out": "file or folder to write; of compare: a table, .csv or .json",
    "image_id": "tested cases; by default the melanoma of median risk",
    "collection": "isic_archive: name of the collection, such as BCN20000",
    "check": "write nothing; tell how the card there differs from the run",
    "root_path": "where a proxy shows the page, such as /melanoma, if it strips that before it asks",
    "parameters": "value of a notebook parameter; may be repeated",
    "over": "values to sweep, such as seed=0,1,2",
}


class Command(TyperCommand):
    """Takes several values after one option (``--over seed=0,1 epochs=2,4``), ``-p NAME VALUE``, and switches without a value."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Write such words as Typer knows them: the option before each value, ``-p NAME=VALUE``, ``--switch yes``."""
        several = {word for param in self.params if getattr(param, "multiple", False) for word in param.opts}
        switches = {word for param in self.params if param.metavar == "[yes|no]" for word in param.opts}
        words, given, option = [], list(args), None
        while given:
            word = given.pop(0)
            if word == "-p" and len(given) > 1 and "=" not in given[0]:
                words += [word, f"{given.pop(0)}={given.pop(0)}"]
            elif word in switches and (not given or given[0].startswith("-")):
                words += [word, "yes"]
            elif word.startswith("-"):
                option = word if word in several else None
                words += [word, given.pop(0)] if given and option else [word]
            else:
                words += [option, word] if option else [word]
        return super().parse_args(ctx, words)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings from the flags among the values given, over those of ``config``, else over environment, ``.env`` and profile."""
    flags = {name: value for name, value in given.items() if name in Settings.model_fields and value is not None}
    if not (config := given.get("config")):
        return Settings(**flags)
    if "profile" in flags:
        raise SettingsError(f"--config {config} holds every setting, so that --profile would change none; leave one of them out")
    file = config / "settings.json" if config.is_dir() else config
    stored = Settings.from_json(file.read_text(encoding="utf-8", errors="replace"), str(file))
    return stored.with_changes(**{"run_dir": None, "resume": False} | flags)


def _flags(names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Name and annotation of the options that stand for these settings, under the heading of their group."""
    heading, words = "", {"None": "none", "True": "yes", "False": "no"}
    for name, field in Settings.model_fields.items():
        heading = HEADINGS.get(name, heading)
        if name in names:
            text, default = field.description, words.get(str(field.default), field.default)
            text += "" if default == () or "default" in text else f" (default {default})"
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            metavar = "[yes|no]" if field.annotation is bool else "|".join(choices) or name.upper()
            option = typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=text, rich_help_panel=heading)
            yield name, Annotated[str | None, option]
    if names == ALL:
        yield "config", Annotated[Path | None, typer.Option(help=HELP["config"])]


def _option(name: str, annotation: Any) -> Any:
    """The annotation with what Typer needs to know."""
    if POSITIONAL.get(name) == annotation:
        return Annotated[annotation, typer.Argument(help=HELP.get(name))]
    word = {"parameters": "-p", "model": "--run"}.get(name, f"--{name.replace('_', '-')}")
    metavar = {"parameters": "NAME VALUE", "over": "NAME=V,V"}.get(name)
    return Annotated[annotation, typer.Option(word, metavar=metavar, help=HELP.get(name))]


def _command(function: Callable) -> Callable:
    """The function as Typer takes it: ``settings`` replaced by flags, what it returns as exit status."""
    own = dict(inspect.signature(function).parameters)
    takes_settings = own.pop("settings", None) is not None

    def call(**given: Any) -> None:
        values = {name: given[name] for name in own} | ({"settings": settings_of(given)} if takes_settings else {})
        raise typer.Exit(function(**values) or 0)

    kind = inspect.Parameter.KEYWORD_ONLY
    parts = [part.replace(kind=kind, annotation=_option(part.name, part.annotation)) for part in own.values()]
    flags = _flags(FLAGS.get(function.__name__, ()))
    parts += [inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in flags]
    call.__doc__, call.__signature__ = function.__doc__, inspect.Signature(parts)
    call.__annotations__ = {part.name: part.annotation for part in parts}
    return call


def build() -> typer.Typer:
    """The whole command line."""
    tree, groups = typer.Typer(add_completion=False, no_args_is_help=True), {}
    for panel, name in ((panel, name) for panel, names in PANELS.items() for name in names):
        group, _, word = name.rpartition("_")
        if group and group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True)
            tree.add_typer(groups[group], name=group, help=GROUPS[group], rich_help_panel=panel)
        groups.get(group, tree).command(word, cls=Command, rich_help_panel=panel)(_command(vars(commands)[name]))

    @tree.callback()
    def start(debug: Annotated[bool, typer.Option("--debug", help="show where an error came from")] = False) -> None:
        """Melanoma detection from dermoscopy and metadata: teaching and analysis. Educational, never a diagnosis."""

    return tree


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of these words, by default the process's; an error is one sentence, with ``--debug`` a traceback.

    Returns the exit status: 0 done, 1 an error explained on standard error, 2 wrong usage.
    """
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))  # of the processes of one training the first reports
    logging.basicConfig(level=logging.INFO if rank == "0" else logging.WARNING, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(f"melanoma_lib {__version__}")
        return 0
    try:
        build()([word for word in words if word != "--debug"], prog_name="python -m melanoma_lib")
    except SystemExit as end:
        return end.code
    except Exception as error:
        if "--debug" in words:
            raise
        explained = isinstance(error, KitError | OSError)  # an OSError names its file: no space, no permission, no such folder
        told = str(error) if explained else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"error: {told}", file=sys.stderr)
    return 1
