"""A lesson as small as the contract allows, to be run and broken in tests."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

INTRODUCTION = """# 07 · A mini lesson

You will be able to count. About 1 minutes. Prerequisites: none. Educational, not for diagnosis."""
IMPORTS = """import matplotlib.pyplot as plt
import numpy as np

from melanoma_lib.classroom.checks import Exercise, NotYet
from melanoma_lib.plotting import describe
from melanoma_lib.settings import Settings"""
PARAMETERS = 'profile = "fast"\nseed = 0\nrate = 0.5\nshout = False\nrun_dir = ""'
SETTINGS = "settings = Settings.for_notebook(profile=profile, seed=seed, run_dir=run_dir)"
DRAWING = """figure, ax = plt.subplots(figsize=(2, 2))
ax.plot([0, 1], [0, seed])
describe(ax, f"A line from 0 to {seed}.")"""
DIGEST = "print('sum', int(np.arange(10).sum()) + seed)"
EXERCISE = "def double(x):\n    # solution\n    return 2 * x\n    # end of solution"
HINT = "<details><summary>Hint</summary>\n\nadd\n\n</details>"
CLOSING = f"{HINT}\n\n## Your own data\n\n## Key terms\n\n- **sum**: all added.\n\n## References\n\n- None."


def mini_lesson(folder: Path, **replaced: str) -> Path:
    """Write the lesson, unexecuted, with some cells replaced; ``extra`` adds one before the closing."""
    tagged = ("parameters", "digest", "exercise")
    sources = {
        "introduction": INTRODUCTION, "imports": IMPORTS, "parameters": PARAMETERS, "settings": SETTINGS,
        "question": "Predict: what is the sum?", "drawing": DRAWING, "digest": DIGEST, "exercise": EXERCISE,
        **({"extra": ""} if "extra" in replaced else {}), "closing": CLOSING,
    }  # fmt: skip
    cells = [
        new_markdown_cell(source)
        if name in ("introduction", "question", "closing")
        else new_code_cell(source, metadata={"tags": [name]} if name in tagged else {})
        for name, source in (sources | replaced).items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "07_mini.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path
