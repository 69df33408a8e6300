"""The studies as notebooks: what each must be as committed, that it runs, and that its prose types no measured number."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from melanoma_lib.classroom.handout import pictures
from melanoma_lib.classroom.lesson import Lesson, tags_of
from melanoma_lib.classroom.papermill import run_lesson
from melanoma_lib.settings import ENV_PREFIX, Settings
from melanoma_lib.training import train
from melanoma_lib.training.module import MelanomaModule

ROOT = Path(__file__).parents[2]
STUDIES = {path.stem: Lesson(path) for path in sorted((ROOT / "notebooks/studies").glob("*.ipynb"))}
LIBRARIES = {"pandas", "seaborn", "sklearn", "scipy", "numpy", "torch", "timm", "lightly", "pytorch_lightning", "statsmodels"}
MEASURED = re.compile(r"\d*\.\d{2,}|\d+(?:\.\d+)?%")  # what a table must say, not a sentence
CONVENTIONS = {"95%", "5%", "1%", "10%", "100%"}  # levels and shares that are chosen, not measured
# Small enough for seconds; "RUN" and "OTHER" are two finished runs that tested the same images.
SMALL = {
    "backbones": {
        "backbones": "test_efficientnet,test_resnet", "image_size": 32, "train": True, "run_dirs": "RUN",
    },
    "ablations": {"run_a": "RUN", "run_b": "OTHER", "n_resamples": 100},
    "external_validation": {"run_dir": "RUN", "local_prevalence": 0.1, "n_draws": 5},
    "heatmap_evaluation": {"run_dir": "RUN", "n_maps": 6, "n_resamples": 100},
    "self_supervised": {"backbone": "test_efficientnet", "pretrained": False, "n_patients": 80, "save_weights": True},
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_keeps_the_contract(name):
    cells = STUDIES[name].notebook.cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert len(cells) <= 35 and len(text.split()) <= 1_800
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    imports, parameters = code[:2]
    assert all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in ast.parse(imports.source).body)
    assert "parameters" in tags_of(parameters) and 1 <= len(STUDIES[name].parameters) <= 6
    assert [cell.source for cell in code[1:] if len(cell.source.splitlines()) > 15] == []
    assert [line for cell in code for line in cell.source.splitlines() if len(line) > 100] == []
    imported = {words.split(".")[0] for words in re.findall(r"^(?:import|from) (\S+)", imports.source, re.MULTILINE)}
    assert len(imported & LIBRARIES) >= 4
    assert "not for diagnosis" in cells[0].source and f"notebooks/studies/{name}.ipynb" in cells[0].source
    assert len(re.findall(r"^## Limitations$", text, re.MULTILINE)) == 1
    references = text.partition("## References")[2].strip().splitlines()
    assert 3 <= len(references) <= 6 and all(re.search(r"doi:10\.\d{4}/\S+$|arXiv:\d{4}\.\d{5}$", line) for line in references)


@pytest.mark.parametrize("name", STUDIES)
def test_prose_types_no_measured_number(name):
    cells = [cell for cell in STUDIES[name].notebook.cells if cell.cell_type == "markdown"]
    prose = "\n".join(cell.source.partition("## References")[0] for cell in cells)
    prose = re.sub(r"```.*?```|`[^`]*`|arXiv:\S+|doi:\S+", "", prose, flags=re.DOTALL)
    assert set(MEASURED.findall(prose)) <= CONVENTIONS


@pytest.fixture(scope="module")
def other_run(tiny_settings, tmp_path_factory):
    return train(tiny_settings.with_changes(runs_dir=tmp_path_factory.mktemp("other"), max_epochs=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs(name, tiny_run, other_run, lesson_folders, tmp_path, monkeypatch):
    monkeypatch.setenv(f"{ENV_PREFIX}N_PATIENTS", "80")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # no weights of the hub: the trainings start from scratch
    if name == "self_supervised":
        pytest.importorskip("lightly")  # pip install .[selfsupervised]
    for place, folder in lesson_folders.items():
        monkeypatch.setenv(f"{ENV_PREFIX}{place.upper()}", str(folder))
    runs = {"RUN": str(tiny_run.path), "OTHER": str(other_run.path)}
    values = {key: runs.get(value, value) for key, value in SMALL[name].items()}
    outcome = run_lesson(STUDIES[name], tmp_path, STUDIES[name].with_defaults(values), show_progress=False)
    assert outcome.ok, outcome.status
    cells = nbformat.read(outcome.notebook, as_version=4).cells
    alt_texts = [picture.metadata["image/png"]["alt"] for picture in pictures(cells)]
    assert len(alt_texts) >= 3 and all(alt_texts)
    assert [output.text for cell in cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"] == []
    if name == "self_supervised":  # a training takes what it kept
        (weights,) = lesson_folders["runs_dir"].glob("simclr-*.pt")
        MelanomaModule(Settings(backbone="test_efficientnet", init_weights=weights), 4, 0.2)
