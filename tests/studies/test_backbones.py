import shlex

import pytest

from melanoma_lib.__main__ import build_parser, main
from melanoma_lib.commands import settings_of
from melanoma_lib.errors import StudyError, WeightsUnavailableError
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.studies import backbones
from melanoma_lib.studies.backbones import ENTRIES, Entry, command_of, has_weights, league, plan, weights_of
from melanoma_lib.studies.backbones_words import FROZEN, METADATA, OWN, as_markdown, recommend
from melanoma_lib.studies.pareto import pareto_figure
from melanoma_lib.studies.results import load_results, save_results
from melanoma_lib.training import train
from tests.studies.leagues import made_up

TINY = (Entry("Tiny", "test_efficientnet", pretrained=False), Entry("Residual", "test_resnet", pretrained=False))


@pytest.fixture(scope="module")
def base(tiny_settings):
    return tiny_settings.with_changes(folds=3, fold=2, max_epochs=1, frozen_stride=0)


@pytest.fixture(scope="module")
def played(base):
    return league(base, TINY, frozen_size=32, rounds=1)


def test_the_league_scores_networks_and_baselines_on_the_fold(played, base):
    names = {row["name"] for row in played.rows}
    assert names == {"Tiny (from scratch, 32 px)", "Residual (from scratch, 32 px)", FROZEN, METADATA}
    runs = {row["name"]: Run(settings.run_path) for row in played.rows for name, settings in plan(base, TINY).items()
            if name == row["name"]}  # fmt: skip
    for row in played.rows:
        if row["name"] in runs:
            assert row["auroc"]["value"] == pytest.approx(runs[row["name"]].metrics["auroc"]["value"])
            assert row["brier"]["value"] == pytest.approx(runs[row["name"]].metrics["calibration"]["risk"]["brier"]["value"])
    test = runs["Tiny (from scratch, 32 px)"].predictions("test")
    assert played.details["n_cases"] == len(test) and played.details["n_melanomas"] == test["target"].sum()
    assert [row["auroc"]["value"] for row in played.rows] == sorted((row["auroc"]["value"] for row in played.rows), reverse=True)


def test_the_table_is_fit_to_be_committed_read_and_drawn(played, tmp_path):
    save_results(played, tmp_path)
    table = load_results("league", tmp_path)
    assert str(tmp_path) not in table.command and "--data-dir" not in table.command and "--folds 3 --fold 2" in table.command
    assert "Tiny" in as_markdown(table) and "Highest AUROC" in recommend(table) and "front" in pareto_figure(table).alt_text
    assert all("runs-dir" not in (row["command"] or "") for row in table.rows)


def test_a_second_call_trains_nothing_and_takes_finished_runs_along(played, base, monkeypatch):
    other = train(base.with_changes(seed=0, backbone="test_efficientnet", image_size=64, run_dir=base.runs_dir / "larger"))
    monkeypatch.setattr("melanoma_lib.training.fit", lambda *_: pytest.fail("trained again"))
    again = Run(next(iter(plan(base, TINY).values())).run_path)
    table = league(base, TINY, [other, again], frozen_size=32, rounds=1)
    before, names = {row["name"]: row["auroc"] for row in played.rows}, {row["name"] for row in table.rows}
    assert table.command == f"{played.command} --run runs/{other.path.name} runs/{again.path.name}"
    assert played.command.endswith("--frozen-size 32")
    repeated = f"Tiny (from scratch, 32 px) {again.settings.fingerprint()}"
    assert names - set(before) == {"Tiny (from scratch, 64 px)", repeated}
    assert next(row for row in table.rows if row["name"] == repeated)["gain_auroc"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert all(row["auroc"] == before.get(row["name"], row["auroc"]) for row in table.rows)


def test_a_run_that_tested_other_cases_is_refused(played, base, tiny_run):
    with pytest.raises(StudyError, match="did not test the cases"):
        league(base, TINY, [tiny_run], frozen_size=32, rounds=1)


def test_all_folds_are_averaged(base):
    table = league(base.with_changes(folds=2, fold=0), TINY[:1], frozen_size=32, rounds=1)
    run = Run(next(iter(plan(base.with_changes(folds=2, fold=0), TINY[:1]).values())).run_path)
    row = next(row for row in table.rows if row["default"])
    assert row["auroc"]["value"] == pytest.approx(run.metrics["auroc"]["value"])
    assert table.details["n_cases"] == len(run.splits) and "all 2 folds" in table.notes[0]


def test_weights_decide_the_recipe(base, monkeypatch):
    entry = Entry("Net", "convnext_tiny", scratch={"learning_rate": 3e-4})
    monkeypatch.setattr(backbones, "require_backbone", lambda *_, **__: None)
    assert has_weights("convnext_tiny")
    warm = entry.settings(base)
    assert warm.pretrained and warm.learning_rate == base.learning_rate and warm.backbone_lr_scale == base.backbone_lr_scale

    def refuse(*_, **__):
        raise WeightsUnavailableError("none")

    monkeypatch.setattr(backbones, "require_backbone", refuse)
    cold = entry.settings(base)
    assert not has_weights("convnext_tiny") and not cold.pretrained
    assert (cold.learning_rate, cold.backbone_lr_scale, cold.warmup_epochs) == (3e-4, 1.0, 1.0)
    assert cold.monitor == warm.monitor == "val/auroc"


def test_weights_of_a_file_are_called_so_and_start_no_entry(base, tmp_path, monkeypatch):
    begun = base.with_changes(pretrained=False, init_weights=tmp_path / "simclr-0123456789ab.pt")
    assert weights_of(begun) == OWN
    monkeypatch.setattr(backbones, "has_weights", lambda _: False)
    assert list(plan(begun)) == list(plan(base))
    assert {settings.init_weights for settings in plan(begun).values()} == {None}


def test_a_run_dir_could_hold_but_one_training_and_is_set_aside(base, tmp_path):
    assert len({settings.run_path for settings in plan(base.with_changes(run_dir=tmp_path), TINY).values()}) == len(TINY)


def test_entries_that_would_repeat_a_training_are_left_out(base, monkeypatch):
    monkeypatch.setattr(backbones, "has_weights", lambda _: False)
    trainings = plan(base)
    assert len(trainings) == len(ENTRIES) - 1  # Lite0 without weights is there once
    assert len({settings.run_path for settings in trainings.values()}) == len(trainings)
    monkeypatch.setattr(backbones, "has_weights", lambda _: True)
    assert len(plan(base)) == len(ENTRIES) and next(iter(plan(base))) == "EfficientNet-Lite0 (ImageNet, 32 px)"


def test_the_command_of_settings_gives_these_settings_back(base, tmp_path):
    spaced = base.with_changes(runs_dir=tmp_path / "two words", alpha=0.25, tta=True, image_dirs=(tmp_path, tmp_path / "b"))
    for settings in (spaced, Settings(), *plan(base, TINY).values()):
        words = shlex.split(command_of(settings))
        assert words[:4] == ["python", "-m", "melanoma_lib", "train"]
        assert settings_of(build_parser().parse_args(words[3:])) == settings
    words = shlex.split(command_of(spaced, "study league", places=False))[3:]
    found = settings_of(build_parser().parse_args(words))
    assert found.fingerprint() == spaced.fingerprint() and found.runs_dir == Settings().runs_dir


def test_the_command_line_prints_the_plan(base, capsys, monkeypatch):
    monkeypatch.setattr(backbones, "has_weights", lambda _: False)
    words = shlex.split(command_of(base, "study league"))[3:]
    assert build_parser().parse_args(words).frozen_size == backbones.FROZEN_SIZE
    assert main([*words, "--plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [command_of(settings) for settings in plan(base).values()]


def test_the_command_line_leaves_table_and_figure_and_says_what_they_say(base, capsys, monkeypatch, tmp_path):
    table, asked = made_up(), {}
    monkeypatch.setattr(backbones, "league", lambda settings, **options: asked.update(options, settings=settings) or table)
    words = shlex.split(command_of(base, "study league"))[3:]
    assert main([*words, "--frozen-size", "64", "--out", str(tmp_path)]) == 0
    assert asked["settings"] == base and asked["frozen_size"] == 64 and asked["finished"] == []
    assert load_results("league", tmp_path).rows == table.rows and (tmp_path / "league.png").stat().st_size > 10_000
    told = capsys.readouterr().out
    assert as_markdown(table) in told and recommend(table) in told and pareto_figure(table).alt_text in told
