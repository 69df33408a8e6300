"""The training lesson works with what shaped the run."""

from melanoma_lib.lessons import training
from melanoma_lib.training import train

# --- what the lesson works with ---


def test_a_finished_run_decides_what_shaped_it_and_the_notebook_where_things_lie(tiny_run, tiny_settings, tmp_path):
    asked = tiny_settings.with_changes(
        run_dir=tiny_run.path, backbone="resnet18", image_size=64, seed=9, cache_dir=tmp_path, data_dir=None
    )
    data = training.lesson_data(asked)
    assert data.settings.shaping() == tiny_run.settings.shaping()
    assert (data.settings.cache_dir, data.settings.run_path) == (tmp_path, tiny_run.path)
    assert data.settings.data_dir == tiny_settings.data_dir  # the notebook names none
    known = tiny_run.splits.set_index("image_id")["split"]
    assert (data.cases["split"] == data.cases["image_id"].map(known)).all()
    assert train(data.settings).path == tiny_run.path  # resumes: nothing is trained again
