"""The training lesson's functions, against the model, torch, scikit-learn and histories made by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.data.images import evaluation_transform, read_square, stored_side
from melanoma_lib.evaluation import bootstrap_intervals
from melanoma_lib.heads import cached_features
from melanoma_lib.lessons import branches, training
from melanoma_lib.model import MelanomaNet
from melanoma_lib.training import train


@pytest.fixture
def data(tiny_run):
    return training.lesson_data(tiny_run.settings)


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


# --- pictures ---


@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0", "resnet18"])
def test_normalised_images_come_back_as_their_colours(data, backbone):
    pixels = read_square(data.cases["image_path"][0], stored_side(32))
    from PIL import Image

    shown = training.displayable(evaluation_transform(backbone, 32)(Image.fromarray(pixels))[None], backbone)[0]
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    assert shown.shape == (32, 32, 3)
    assert np.abs(shown - small).mean() < 0.02


def test_batch_and_augmentation_show_the_cases_pictures(data):
    batch = next(iter(data.train_dataloader()))
    figure = training.batch_figure(data, batch, n=5)
    assert figure.alt_text.startswith(f"5 of {len(batch['target'])} augmented images")
    titles = [axes.get_title(loc="left")[2:] for axes in figure.axes if axes.images]
    assert titles == ["melanoma" if target else "not melanoma" for target in batch["target"][:5]]
    pictures = [axes.images[0].get_array() for axes in training.augmentation_figure(data, 3, n=3).axes if axes.images]
    assert len(pictures) == 4
    assert all(not np.array_equal(pictures[0], picture) for picture in pictures[1:])


def test_parts_have_the_shapes_and_sizes_of_the_model():
    model = MelanomaNet("test_efficientnet", 7, pretrained=False, metadata_hidden=5)
    parts = branches.model_parts(model, 48)
    assert parts["parameters"].sum() == sum(parameter.numel() for parameter in model.parameters())
    width = model.image_branch.head_hidden_size
    assert parts["output"].to_dict() == {
        "image": "(B, 3, 48, 48)",
        "image branch": f"(B, {width})",
        "metadata": "(B, 7)",
        "metadata branch": "(B, 5)",
        "concatenation": f"(B, {width + 5})",
        "head": "(B, 1)",
    }
    assert not model.head._forward_hooks
    text = branches.model_figure(parts).alt_text
    assert f"concatenation (B, {width + 5})" in text
    assert f"{parts.loc['head', 'parameters']:,} parameters" in text


# --- curves ---


class Screen:
    """Stands for the notebook's ``display``: keeps every figure that was shown in the one place."""

    def __init__(self) -> None:
        self.shown = []

    def __call__(self, figure, display_id):
        assert display_id is True
        self.update(figure)
        return self

    def update(self, figure):
        self.shown.append(figure.alt_text)


def test_curves_grow_while_it_trains_and_come_back_without_training(tiny_settings, tmp_path, monkeypatch):
    settings = tiny_settings.with_changes(runs_dir=tmp_path, resume=True)
    monkeypatch.setattr(training, "REDRAW", 0.0)
    screen = Screen()
    run = training.live_training(settings, screen)
    n_batches = -(-len(run.splits.query("split == 'train'")) // settings.batch_size)
    assert len(screen.shown) >= 2 + settings.max_epochs + (n_batches - 1) * settings.max_epochs
    assert "0 of 3 epochs done" in screen.shown[0]
    assert any("2 of 3 epochs done; after epoch 2" in text for text in screen.shown)
    last = run.history.iloc[-1]
    assert f"finished; after epoch 3: training loss {last['train/loss']:.4f}" in screen.shown[-1]

    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
    again = Screen()
    assert training.live_training(settings, again).path == run.path
    assert again.shown == [screen.shown[-1]]


def test_the_table_of_over_fitting_reads_the_history():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "train/loss": [3.0, 2, 1], "val/loss": [3.0, 2, 2.5], "train/auroc": 0.9, "val/auroc": 0.8}
    )
    row = training.overfitting_table({"one": history}).loc["one"]
    assert row["lowest validation loss after"] == 2
    assert (row["validation loss there"], row["validation loss at the end"], row["training loss at the end"]) == (2, 2.5, 1)
    assert "one: epochs 3" in training.overfitting_figure({"one": history, "two": history}).alt_text


# --- ablation ---


@pytest.fixture(scope="module")
def contenders(tiny_run):
    data = training.lesson_data(tiny_run.settings)
    return branches.ablation(tiny_run, data, cached_features(tiny_run.model(), data))


def test_the_ablation_measures_all_on_the_runs_test_cases(contenders, tiny_run):
    test = tiny_run.predictions("test")
    names = [one.name for one in contenders]
    assert names == [
        branches.REFERENCE, "head on metadata only", "head on image only", "head on image + metadata", "the run, trained whole",
    ]  # fmt: skip
    whole = contenders[-1]
    assert whole.auroc.value == pytest.approx(roc_auc_score(test["target"], test["probability"]))
    n = tiny_run.settings.n_resamples
    assert whole.auroc == bootstrap_intervals(test["target"], test["probability"], test["group_id"], n=n)["auroc"]
    assert contenders[0].gain is None
    for one in contenders[1:]:
        assert one.gain.value == pytest.approx(one.auroc.value - contenders[0].auroc.value)
        assert one.gain == branches.gain(tiny_run, one.scores, contenders[0].scores)


def test_ceilings_are_the_true_risks_of_the_same_inputs(contenders, tiny_run):
    test = tiny_run.predictions("test")
    metadata, image, both = (
        roc_auc_score(test["target"], test[name]) for name in ("truth_risk_metadata", "truth_risk_image", "true_risk")
    )
    assert [one.ceiling for one in contenders] == pytest.approx([metadata, metadata, image, both, both])
