import json
import math

import pandas as pd
import pytest
from joblib import parallel_config

from melanoma_lib.classroom import sweep as module
from melanoma_lib.classroom.lesson import Lesson
from melanoma_lib.classroom.papermill import run_lesson
from melanoma_lib.classroom.sweep import grid, sweep
from melanoma_lib.runs import Run
from tests.notebooks.mini import IMPORTS, mini_lesson


@pytest.mark.slow
def test_a_sweep_compares_its_runs_goes_on_where_it_stopped_and_repeats_a_changed_lesson(tiny_settings, tmp_path, monkeypatch):
    changes = tiny_settings.model_dump(mode="json", exclude={"run_dir", "seed", "image_dirs"}) | {"max_epochs": 1}
    settings = f"import json\nsettings = Settings.for_notebook(seed=seed, run_dir=run_dir, **json.loads({json.dumps(changes)!r}))"
    train = "assert seed != 9, 'no such seed'\nfrom melanoma_lib.training import train\n_ = train(settings)"
    lesson, out, ran = Lesson(mini_lesson(tmp_path, imports=IMPORTS, settings=settings, extra=train)), tmp_path / "sweep", []

    def counted(lesson, folder, values, **options):
        ran.append(values["seed"])
        return run_lesson(lesson, folder, values, **options)

    monkeypatch.setattr(module, "run_lesson", counted)
    points = grid(lesson, {"seed": ["0", "9"]}, {}, out)
    with parallel_config("sequential"):
        table = sweep(lesson, points, out)
        good, bad = table.to_dict("records")
        assert (good["seed"], good["status"]) == (0, "ok")
        assert good["auroc"] == Run(points[0].values["run_dir"]).metrics["auroc"]["value"]
        assert good["auroc_low"] <= good["auroc"] <= good["auroc_high"]
        assert "no such seed" in bad["status"] and math.isnan(bad["auroc"])
        assert pd.read_csv(out / "comparison.csv")["auroc"].iloc[0] == pytest.approx(good["auroc"])
        assert sweep(lesson, points, out)["auroc"].iloc[0] == good["auroc"]
        assert ran == [0, 9, 9], "only the failed point runs again"
        mini_lesson(tmp_path, extra="1 / 0")
        sweep(Lesson(lesson.path), points, out)
        assert ran == [0, 9, 9, 0, 9]


def test_points_differ_in_folder_run_and_values(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path, extra="train(settings)"))
    points = grid(lesson, {"seed": ["0", "1"], "rate": ["0.1", "0.2"]}, {"shout": "yes"}, tmp_path)
    assert [point.varied for point in points] == [{"seed": s, "rate": r} for s in (0, 1) for r in (0.1, 0.2)]
    assert len({point.folder for point in points}) == 4
    assert len({point.values["run_dir"] for point in points}) == 4
    assert all(point.values["shout"] is True for point in points)
