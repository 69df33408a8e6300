"""The training lesson's functions, against the model, torch, scikit-learn and histories made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.data.images import evaluation_transform, read_square, stored_side
from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import bootstrap_intervals
from melanoma_lib.heads import cached_features
from melanoma_lib.lessons import ablation, curves, training
from melanoma_lib.model import MelanomaNet
from melanoma_lib.reports import ablation_table
from melanoma_lib.runs import Run
from melanoma_lib.training import train


@pytest.fixture
def data(tiny_run):
    return training.lesson_data(tiny_run.settings)


# --- what the lesson works with ---


def test_without_a_run_the_settings_are_taken_as_they_are(tiny_settings, tmp_path):
    data = training.lesson_data(tiny_settings.with_changes(runs_dir=tmp_path, progress=True))
    assert data.settings == tiny_settings.with_changes(runs_dir=tmp_path, resume=True, progress=False)


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


def test_cases_come_in_the_order_of_the_runs_predictions(tiny_run, monkeypatch):
    shuffled = DermoscopyDataModule(tiny_run.settings).cases.drop(columns="split").sample(frac=1, random_state=0)
    monkeypatch.setattr("melanoma_lib.data.datamodule.cases_for", lambda _: shuffled)
    cases = training.lesson_data(tiny_run.settings).cases
    test = cases[cases["split"] == "test"]
    columns = ["image_id", "group_id", "target"]
    np.testing.assert_array_equal(test[columns], tiny_run.predictions("test")[columns])


def test_a_run_of_another_source_or_of_one_branch_is_refused(tiny_run, tiny_settings, tmp_path):
    with pytest.raises(RunError, match=r"on synthetic; this lesson needs image\+metadata on isic2020"):
        training.lesson_data(tiny_settings.with_changes(run_dir=tiny_run.path, source="isic2020"))
    alone = train(tiny_settings.with_changes(modalities="metadata", runs_dir=tmp_path))
    with pytest.raises(RunError, match="holds a run of metadata"):
        training.lesson_data(tiny_settings.with_changes(run_dir=alone.path))


def test_a_run_on_other_cases_is_refused(tiny_run, monkeypatch):
    cases = DermoscopyDataModule(tiny_run.settings).cases.drop(columns="split").iloc[1:]
    monkeypatch.setattr("melanoma_lib.data.datamodule.cases_for", lambda _: cases)
    with pytest.raises(RunError, match="other cases"):
        training.lesson_data(tiny_run.settings)


# --- pictures ---


@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0", "resnet18"])
def test_normalised_images_come_back_as_their_colours(data, backbone):
    pixels = read_square(data.cases["image_path"][0], stored_side(32))
    from PIL import Image

    shown = training.displayable(evaluation_transform(backbone, 32)(Image.fromarray(pixels))[None], backbone)[0]
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    assert shown.shape == (32, 32, 3)
    assert np.abs(shown - small).mean() < 0.02


def test_the_batch_is_described_with_its_labels(data):
    batch = training.first_batch(data)
    text = training.batch_figure(data, batch, n=5).alt_text
    assert text.startswith(f"5 of the {len(batch['target'])} augmented images")
    assert f"holds {int(batch['target'].sum())} melanomas" in text
    shown = [data.cases.iloc[int(row)] for row in batch["row"][:5]]
    words = [f"{'melanoma' if case['target'] else 'not melanoma'} ({training._metadata_words(case)})" for case in shown]
    assert "; ".join(words) in text


def test_what_is_not_recorded_is_shown_as_a_question_mark():
    case = pd.Series({"age_approx": np.nan, "sex": None, "anatom_site_general_challenge": pd.NA})
    assert training._metadata_words(case) == "age ?, ?, ?"


def test_augmented_views_differ_and_the_evaluated_one_does_not(data):
    row = 3
    one, two = (training.augmentation_figure(data, row, n=3) for _ in range(2))
    pictures = [axes.images[0].get_array() for axes in one.axes if axes.images]
    assert len(pictures) == 4
    assert all(not np.array_equal(pictures[0], picture) for picture in pictures[1:])
    assert one.alt_text == two.alt_text
    assert str(data.cases["image_id"][row]) in one.alt_text


def test_parts_have_the_shapes_and_sizes_of_the_model():
    model = MelanomaNet("test_efficientnet", 7, pretrained=False, metadata_hidden=5)
    parts = training.model_parts(model, 48)
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
    text = training.model_figure(parts).alt_text
    assert f"concatenation (B, {width + 5})" in text
    assert f"{parts.loc['head', 'parameters']:,} parameters" in text


def test_the_untrained_model_has_the_parts_of_the_trained_one(data, tiny_run):
    trained, untrained = (training.model_parts(model, 32) for model in (tiny_run.model(), training.untrained_model(data)))
    pd.testing.assert_frame_equal(trained, untrained)


def test_looking_at_the_parts_leaves_the_model_as_it_was():
    model = MelanomaNet("test_efficientnet", 7, pretrained=False).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.model_parts(model, 32)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


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
    monkeypatch.setattr(curves, "REDRAW", 0.0)
    screen = Screen()
    run = curves.live_training(settings, screen)
    n_batches = -(-len(run.splits.query("split == 'train'")) // settings.batch_size)
    assert len(screen.shown) >= 2 + settings.max_epochs + (n_batches - 1) * settings.max_epochs
    assert "0 of 3 epochs done" in screen.shown[0]
    assert any("2 of 3 epochs done. After epoch 2" in text for text in screen.shown)
    last = run.history.iloc[-1]
    assert f"finished. After epoch 3: training loss {last['train/loss']:.4f}" in screen.shown[-1]

    monkeypatch.setattr(curves, "train", lambda *_, **__: pytest.fail("trained again"))
    again = Screen()
    assert curves.live_training(settings, again).path == run.path
    assert again.shown == [screen.shown[-1]]


def test_the_drawn_loss_of_a_batch_leaves_the_second_task_out(tiny_settings, tmp_path, monkeypatch):
    drawn = []
    draw = curves.curves_figure
    monkeypatch.setattr(
        curves, "curves_figure", lambda history, steps=(), *rest: drawn.append(list(steps)) or draw(history, steps, *rest)
    )
    run = curves.live_training(tiny_settings.with_changes(runs_dir=tmp_path, diagnosis_weight=2.0, max_epochs=1), Screen())
    steps = np.array(drawn[-2])  # the last drawing shows the finished run
    assert steps[-1, 0] == 1.0
    assert steps[:, 1].mean() == pytest.approx(run.history["train/loss"].iloc[0], rel=1e-4)


def test_watching_changes_nothing(tiny_run, tiny_settings, tmp_path):
    run = curves.live_training(tiny_settings.with_changes(runs_dir=tmp_path, resume=True), Screen())
    pd.testing.assert_frame_equal(run.predictions("test"), tiny_run.predictions("test"))


def history(train_loss, val_loss) -> pd.DataFrame:
    n = len(train_loss)
    aurocs = {"train/auroc": np.linspace(0.8, 0.95, n), "val/auroc": np.linspace(0.8, 0.85, n)}
    return pd.DataFrame({"epoch": range(1, n + 1), "train/loss": train_loss, "val/loss": val_loss} | aurocs)


@pytest.mark.parametrize(
    ("train_loss", "val_loss", "words"),
    [
        (
            [3, 2, 1],
            [3, 2, 2.5],
            "lowest after epoch 2 and ended 25.0% above that, while training loss fell further",
        ),
        ([3, 2, 1], [3, 2, 1], "lowest at the end: this training shows no over-fitting yet"),
        ([3, 1, 2], [3, 2, 2.5], "lowest after epoch 2, and training loss fell no further either"),
        ([3], [3], "lowest at the end"),
    ],
)
def test_curves_are_read_as_they_are(train_loss, val_loss, words):
    table = history(train_loss, val_loss)
    text = curves.overfitting_in_words(table)
    last = table.iloc[-1]
    assert words in text
    assert f"a gap of {last['train/auroc'] - last['val/auroc']:+.3f}" in text
    assert " ".join(text.split()) in curves.overfitting_figure({"one": table, "two": table}).alt_text


# --- ablation ---


@pytest.fixture(scope="module")
def contenders(tiny_run):
    data = training.lesson_data(tiny_run.settings)
    return ablation.ablation(tiny_run, data, cached_features(tiny_run.model(), data))


def test_the_ablation_measures_all_on_the_runs_test_cases(contenders, tiny_run):
    test = tiny_run.predictions("test")
    names = [one.name for one in contenders]
    assert names == [
        ablation.REFERENCE, "head on metadata only", "head on image only", "head on image + metadata", "the run, trained whole",
    ]  # fmt: skip
    whole = contenders[-1]
    assert whole.auroc.value == pytest.approx(roc_auc_score(test["target"], test["probability"]))
    n = tiny_run.settings.n_resamples
    assert whole.auroc == bootstrap_intervals(test["target"], test["probability"], test["group_id"], n=n)["auroc"]
    assert contenders[0].gain is None
    for one in contenders[1:]:
        assert one.gain.value == pytest.approx(one.auroc.value - contenders[0].auroc.value)
        assert one.gain == ablation.gain(tiny_run, one.scores, contenders[0].scores)


def test_ceilings_are_the_true_risks_of_the_same_inputs(contenders, tiny_run):
    test = tiny_run.predictions("test")
    metadata, image, both = (
        roc_auc_score(test["target"], test[name]) for name in ("truth_risk_metadata", "truth_risk_image", "true_risk")
    )
    assert [one.ceiling for one in contenders] == pytest.approx([metadata, metadata, image, both, both])


def test_real_cases_have_no_ceiling(contenders, data, tiny_run, monkeypatch):
    real = tiny_run.predictions("test").drop(columns=["true_risk", "truth_risk_image", "truth_risk_metadata"])
    monkeypatch.setattr(Run, "predictions", lambda *_: real)
    without = ablation.ablation(tiny_run, data, cached_features(tiny_run.model(), data))
    assert [one.ceiling for one in without] == [None] * len(contenders)
    assert "best possible" not in ablation.ablation_figure(without).alt_text


def test_the_figure_names_every_contender(contenders):
    text = ablation.ablation_figure(contenders).alt_text
    for one in contenders:
        assert f"{one.name} {one.auroc:.3f}" in text
        assert f"best possible {one.ceiling:.3f}" in text
    assert f"gain {contenders[-1].gain:+.3f}" in text


def test_no_pixel_scores_know_the_training_cases_only(data):
    scores = ablation.no_pixel_scores(data)
    assert scores.shape == (len(data.rows("test")),)
    changed = data.cases.copy()
    changed.loc[data.rows("test"), "target"] = 1 - changed.loc[data.rows("test"), "target"]
    data.cases = changed
    np.testing.assert_array_equal(scores, ablation.no_pixel_scores(data))


def test_whole_runs_are_compared_where_they_are_given(tiny_run, tiny_settings, tmp_path):
    assert "compare_runs" in ablation.whole_ablation("")
    with pytest.raises(RunError, match="no finished run"):
        ablation.whole_ablation(str(tmp_path))
    runs = [train(tiny_settings.with_changes(modalities=branch, runs_dir=tmp_path)) for branch in ("metadata", "image+metadata")]
    assert ablation.whole_ablation(str(tmp_path)) == ablation_table(sorted(runs, key=lambda run: run.path))
