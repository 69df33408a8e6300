"""A lesson as small as the contract allows, to be run and broken in tests."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

INTRODUCTION = """# 07 · A mini lesson

You will be able to count. About 1 minutes. Prerequisites: none. Educational, not for diagnosis."""
IMPORTS = """import matplotlib.pyplot as plt
import numpy as np

from melanoma_lib.classroom.checks import NotYet, not_yet
from melanoma_lib.plotting import describe
from melanoma_lib.settings import Settings"""
PARAMETERS = 'profile = "fast"\nseed = 0\nrate = 0.5\nshout = False\nrun_dir = ""'
SETTINGS = "settings = Settings.for_notebook(profile=profile, seed=seed, run_dir=run_dir)"
DRAWING = """figure, ax = plt.subplots(figsize=(2, 2))
ax.plot([0, 1], [0, seed])
describe(ax, f"A line from 0 to {seed}.")"""
DIGEST = "print('sum', int(np.arange(10).sum()) + seed)"
EXERCISE = "def double(x):\n    # solution\n    return 2 * x\n    # end of solution"
CLOSING = """<details><summary>Hint</summary>

add

</details>

## Your own data

## Key terms

- **sum**: all added.

## References

- None."""


def mini_lesson(folder: Path, **replaced: str) -> Path:
    """Write the lesson, unexecuted, with some cells replaced; ``extra`` adds one before the closing."""
    sources = {"introduction": INTRODUCTION, "imports": IMPORTS, "parameters": PARAMETERS, "settings": SETTINGS} | replaced
    cells = [
        new_markdown_cell(sources["introduction"]),
        new_code_cell(sources["imports"]),
        new_code_cell(sources["parameters"], metadata={"tags": ["parameters"]}),
        new_code_cell(sources["settings"]),
        new_markdown_cell("Predict: what is the sum?"),
        new_code_cell(replaced.get("drawing", DRAWING)),
        new_code_cell(replaced.get("digest", DIGEST), metadata={"tags": ["digest"]}),
        new_code_cell(replaced.get("exercise", EXERCISE), metadata={"tags": ["exercise"]}),
        *([new_code_cell(replaced["extra"])] if "extra" in replaced else []),
        new_markdown_cell(replaced.get("closing", CLOSING)),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "07_mini.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path
