import json
import math
import os
import re
import sys

import pandas as pd
import pytest
from joblib import parallel_config

from melanoma_lib.__main__ import main
from melanoma_lib.classroom import sweep as module
from melanoma_lib.classroom.lesson import Lesson
from melanoma_lib.classroom.sweep import grid, row_of, sweep
from melanoma_lib.errors import LessonError, SettingsError
from melanoma_lib.folds import workers
from melanoma_lib.runs import Run
from tests.notebooks.mini import IMPORTS, mini_lesson


@pytest.fixture
def training_lesson(tiny_settings, tmp_path):
    """A lesson that trains a tiny run in its run_dir; seed 9 fails."""
    changes = tiny_settings.model_dump(mode="json", exclude={"run_dir", "seed", "image_dirs"}) | {"max_epochs": 1}
    settings = f"import json\nsettings = Settings.for_notebook(seed=seed, run_dir=run_dir, **json.loads({json.dumps(changes)!r}))"
    train = "assert seed != 9, 'no such seed'\nfrom melanoma_lib.training import train\n_ = train(settings)"
    return Lesson(mini_lesson(tmp_path, imports=IMPORTS, settings=settings, extra=train))


def test_a_sweep_compares_its_runs_and_a_failed_point_is_told(training_lesson, tmp_path):
    out = tmp_path / "sweep"
    points = grid(training_lesson, {"seed": ["0", "9"]}, {}, out)
    table = sweep(training_lesson, points, out)
    good, bad = table.to_dict("records")
    assert (good["seed"], good["status"]) == (0, "ok")
    assert good["auroc"] == Run(points[0].values["run_dir"]).metrics["auroc"]["value"]
    assert good["auroc_low"] <= good["auroc"] <= good["auroc_high"]
    assert "no such seed" in bad["status"]
    assert math.isnan(bad["auroc"])
    assert pd.read_csv(out / "comparison.csv")["auroc"].iloc[0] == pytest.approx(good["auroc"])
    assert f"{good['auroc']:.3f}" in (out / "comparison.md").read_text()
    assert (out / "comparison.png").stat().st_size > 1000


def test_a_sweep_goes_on_where_it_stopped_and_repeats_a_changed_lesson(tmp_path, monkeypatch):
    lesson, ran = Lesson(mini_lesson(tmp_path)), []

    def run(lesson, folder, values, show_progress):
        ran.append(values["seed"])
        status = "ok" if values["seed"] != 2 or ran.count(2) > 1 else "cell 3: it broke"
        return _Outcome(status)

    monkeypatch.setattr(module, "run_lesson", run)
    monkeypatch.setattr(module, "row_of", lambda point: {"seed": point.varied["seed"], "status": "ok", "auroc": None})
    monkeypatch.setattr(module, "as_markdown", lambda table: "")
    points = grid(lesson, {"seed": [0, 1, 2]}, {}, tmp_path / "out")
    with parallel_config("sequential"):
        sweep(lesson, points, tmp_path / "out")
        assert ran == [0, 1, 2]
        sweep(lesson, points, tmp_path / "out")
        assert ran == [0, 1, 2, 2], "only the failed point runs again"
        mini_lesson(tmp_path, digest="print('other')")
        sweep(Lesson(lesson.path), points, tmp_path / "out")
        assert ran == [0, 1, 2, 2, 0, 1, 2]


def printed_parents(points):
    """Process that ran each point: the parent of its kernel, as the lesson printed it."""
    texts = [(point.folder / "07_mini.ipynb").read_text() for point in points]
    return [int(re.search(r"parent (\d+)", text).group(1)) for text in texts]


def test_the_dask_backend_runs_points_on_the_workers_of_a_cluster(tmp_path, monkeypatch):
    from dask.distributed import Client, LocalCluster

    lesson = Lesson(mini_lesson(tmp_path, digest="import os\nprint('parent', os.getppid())"))
    monkeypatch.setattr(module, "row_of", lambda point: {"seed": point.varied["seed"], "status": "ok", "auroc": None})
    monkeypatch.setattr(module, "as_markdown", lambda table: "")
    points = grid(lesson, {"seed": [0, 1]}, {}, tmp_path / "out")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with workers("dask", scheduler=cluster.scheduler_address):
            sweep(lesson, points, tmp_path / "out")
        with Client(cluster) as client:
            pids = set(client.run(os.getpid).values())
    assert set(printed_parents(points)) <= pids
    assert os.getpid() not in pids


def test_dask_starts_a_cluster_of_its_own_where_none_is_named(tmp_path):
    from joblib import Parallel, delayed

    with workers("dask", jobs=2):
        pids = Parallel()(delayed(os.getpid)() for _ in range(8))
    assert os.getpid() not in pids
    assert 1 <= len(set(pids)) <= 2


def test_dask_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SettingsError, match=r"\[dask\]"), workers("dask"):
        pass


class _Outcome:
    def __init__(self, status):
        self.status, self.seconds, self.ok = status, 0.0, status == "ok"


def test_points_differ_in_folder_run_and_values(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path))
    points = grid(lesson, {"seed": ["0", "1"], "rate": ["0.1", "0.2"]}, {"shout": "yes"}, tmp_path)
    assert [point.varied for point in points] == [{"seed": s, "rate": r} for s in (0, 1) for r in (0.1, 0.2)]
    assert len({point.folder for point in points}) == len({point.values["run_dir"] for point in points}) == 4
    assert all(point.values["shout"] is True for point in points)
    assert row_of(points[0])["status"] == "not run"


@pytest.mark.parametrize(
    ("over", "fixed", "words"),
    [
        ({"sed": ["1"]}, {}, "no parameter sed"),
        ({"seed": ["x"]}, {}, "expects int"),
        ({"seed": []}, {}, "nothing to sweep"),
        ({}, {}, "nothing to sweep"),
        ({"run_dir": ["a"]}, {}, "chooses run_dir itself"),
        ({"seed": ["1"]}, {"seed": "2"}, "either swept or fixed"),
    ],
)
def test_a_grid_is_refused_before_anything_runs(tmp_path, over, fixed, words):
    with pytest.raises(LessonError, match=words):
        grid(Lesson(mini_lesson(tmp_path)), over, fixed, tmp_path)


def test_a_lesson_that_leaves_no_run_cannot_be_swept(tmp_path):
    lesson = Lesson(mini_lesson(tmp_path, parameters="seed = 0"))
    with pytest.raises(LessonError, match="no parameter run_dir"):
        grid(lesson, {"seed": [1]}, {}, tmp_path)


def test_the_command_line_says_what_over_expects(tmp_path, monkeypatch, capsys):
    mini_lesson(tmp_path / "notebooks")
    (tmp_path / "notebooks" / "07_mini.ipynb").rename(tmp_path / "notebooks" / "00_start_here.ipynb")
    monkeypatch.chdir(tmp_path)
    assert main(["notebooks", "sweep", "00", "--over", "seed"]) == 1
    assert "name=value,value" in capsys.readouterr().err
