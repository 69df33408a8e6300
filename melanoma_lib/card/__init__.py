"""The model card: what a run is, is worth, and is not for, written from its directory alone."""

import difflib
from pathlib import Path

from melanoma_lib.card.checklists import CLAIM, TRIPOD_AI, checklist
from melanoma_lib.card.sections import SECTIONS, league_of
from melanoma_lib.runs import Run
from melanoma_lib.utils import write_text

NAME = "model_card.md"
NOTE = "> **Educational, not for diagnosis.** This card describes a teaching model; never decide about a person with it."


def write_card(run: Run, league: Path | None = None) -> Path:
    """Write ``model_card.md`` into the run directory.

    Args:
        run: a finished run.
        league: JSON of the run's league of heatmaps; by default ``league.json`` in the run directory, where there is one.

    Raises:
        CardError: if the league is of another model.
        ForeignThresholdError: if the stored operating point belongs to another model.
    """
    path = run.path / NAME
    write_text(path, card_text(run, league))
    return path


def card_text(run: Run, league: Path | None = None) -> str:
    """The card as Markdown; arguments and errors as of :func:`write_card`."""
    graded = league_of(run, league)
    parts = [f"# Model card: {run.path.name}", NOTE]
    for title, section in SECTIONS.items():
        parts += [f"## {title}", section(run, graded)]
    parts += ["## Reporting checklists", *(checklist(one, graded is not None) for one in (CLAIM, TRIPOD_AI))]
    return "\n\n".join(parts) + "\n"


def differences(run: Run, league: Path | None = None) -> list[str]:
    """How the card in the run directory differs from what the run says now, as lines of a diff; empty if it does not.

    Raises:
        FileNotFoundError: if the run has no card yet.
    """
    kept = (run.path / NAME).read_text(encoding="utf-8").splitlines()
    return list(difflib.unified_diff(kept, card_text(run, league).splitlines(), "card", "run", lineterm="", n=0))
