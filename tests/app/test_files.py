"""A folder and a table in, a row an image out: the run's own answers, and a reason where there is none."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.app.files import answer_files, gather
from melanoma_lib.errors import DataError, ExportError
from melanoma_lib.export import export_run, write_export
from melanoma_lib.inference.predictor import COLUMNS
from melanoma_lib.reports.report import predict_with_views
from tests.app.pictures import encoded
from tests.export.models import document_of, model_of

KNOWN = list(COLUMNS.values())


@pytest.fixture
def folder(test_cases, tmp_path) -> Path:
    """Forty images that the run was tested on, with a table of what is known of the patients, and five files of other kinds."""
    cases, images = test_cases[0].head(40), tmp_path / "in" / "images"
    images.mkdir(parents=True)
    for path in cases["image_path"]:
        shutil.copy(path, images)
    (images / "broken.jpg").write_bytes((images / f"{cases['image_id'][0]}.jpg").read_bytes()[:700])
    (images / "dark.png").write_bytes(encoded(np.zeros((90, 90, 3), np.uint8)))
    for name in ("empty.png", "._hidden.jpg", "notes.txt"):
        (images / name).touch()
    table = cases[["image_id", *KNOWN]].rename(columns={"age_approx": "age", KNOWN[2]: "Localization"})
    table.to_csv(images.parent / "patients.csv", index=False, sep=";")
    return images.parent


def test_each_image_gets_the_runs_answer_or_a_reason(app_run, test_cases, folder):
    expected = test_cases[1].head(40).set_index("image_id")
    cases = gather([folder / "images", folder / "patients.csv"])
    known = cases.set_index(cases["image"].map(lambda path: path.stem)).loc[expected.index, KNOWN]
    pd.testing.assert_frame_equal(known, expected[KNOWN], check_dtype=False, check_names=False)
    table = answer_files(app_run, cases, show_progress=False)
    table.index = table["image"].map(lambda path: Path(path).name)
    assert len(table) == 43
    for name, reason in (("broken.jpg", "damaged or cut short"), ("empty.png", "is empty")):
        assert table.at[name, "decision"] == "not read" and np.isnan(table.at[name, "risk"])
        assert reason in table.at[name, "warnings"]
    assert table.at["dark.png", "decision"] == "no answer to rely on"
    assert "too dark" in table.at["dark.png", "warnings"] and "no table names this image" in table.at["dark.png", "warnings"]
    answered = table.loc[expected.index + ".jpg"]
    np.testing.assert_allclose(answered[["probability", "risk"]], expected[["probability", "risk"]], atol=1e-5)
    plain = answered[answered["warnings"] == ""]
    flagged = expected["probability"].to_numpy() >= app_run.operating_point.threshold
    assert len(plain) > 30 and plain["decision"].nunique() == 2
    assert (plain["decision"] == np.where(flagged, "flagged", "not flagged")[answered["warnings"] == ""]).all()


def test_a_model_of_metadata_alone_answers_a_table_and_nothing_else(folder, tmp_path):
    model = model_of("test_efficientnet", "metadata")
    write_export(tmp_path / "model.pt", model, document_of(model, 32), "torchscript")
    (folder / "names.csv").write_text("image,age\nnowhere,20\nelsewhere,80\n")
    table = answer_files(tmp_path / "model.pt", gather([folder / "names.csv"]), show_progress=False)
    assert table["risk"].nunique() == 2 and table["decision"].isin(["flagged", "not flagged"]).all()
    with pytest.raises(DataError, match="give a table"):
        answer_files(tmp_path / "model.pt", gather([folder / "images"]), show_progress=False)


def test_an_exported_file_withholds_what_is_too_dark(app_run, folder, tmp_path):
    export_run(app_run, "torchscript", tmp_path / "model.pt")
    table = answer_files(tmp_path / "model.pt", gather([folder / "images" / "dark.png"]), show_progress=False)
    assert table["decision"].tolist() == ["no answer to rely on"] and "too dark" in table["warnings"][0]


def test_eight_views_are_asked_of_an_export_made_for_them(tiny_run):
    oracle, tested = predict_with_views(tiny_run)["test"].head(40), tiny_run.cases().query("split == 'test'").head(40)
    cases = tested.assign(image=tested["image_path"].map(Path), notes="")
    exported = export_run(tiny_run, "onnx", Path("eight.onnx"), True)
    np.testing.assert_allclose(answer_files(exported, cases, True, False)["risk"], oracle["risk"], atol=1e-5)
    one = tiny_run.predictions("test").head(40)
    np.testing.assert_allclose(answer_files(exported, cases, False, False)["risk"], one["risk"], atol=1e-5)
    with pytest.raises(ExportError, match="export the run with --tta"):
        answer_files(tiny_run, cases, True, False)


def test_strange_words_are_told_and_missing_images_too(folder):
    table = folder / "some.csv"
    table.write_text("isic_id,age,sex,anatom_site_general\ndark,old,Female,moon\nbroken.jpg,55,unknown,Anterior Torso\n")
    cases = gather([folder / "images" / "dark.png", folder / "images" / "broken.jpg", table])
    assert cases[KNOWN].astype(object).fillna("").to_numpy().tolist() == [["", "female", ""], [55.0, "", "torso"]]
    told = "age 'old' is not known and counts as missing. site 'moon' is not known and counts as missing."
    assert cases["notes"].tolist() == [told, ""]
    table.write_text("image,agee\na,3\n")
    with pytest.raises(DataError, match="unknown column 'agee'; did you mean 'age'"):
        gather([table])
    table.write_text("picture,age\na,3\n")
    (folder / "empty").mkdir()
    for given, named in (
        (table, "column image"),
        (folder / "empty", r"empty.*found none"),
        (Path("nodir"), "nodir does not exist"),
    ):
        with pytest.raises(DataError, match=named):
            gather([given])
    with pytest.raises(DataError, match=r"empty.*found none .* settings\.json of a run"):  # beside a folder of images
        gather([folder / "images", folder / "empty"])


def test_what_a_table_says_in_vain_or_twice_is_told(folder, caplog):
    dark, table = folder / "images" / "dark.png", folder / "odd.csv"
    table.write_text('image;aeg;gender;site\ndark;"45,5";male;torso\nelsewhere;50;male;torso\n')
    assert gather([dark, table])[KNOWN].astype(object).fillna("").to_numpy().tolist() == [["", "", "torso"]]
    assert "no column for age and sex, which counts as missing; columns not read: 'aeg', 'gender'" in caplog.text
    assert "1 of 2 images that the tables name are not among those given" in caplog.text
    table.write_text('image;age\ndark;"45,5"\n')
    assert gather([dark, table])["age_approx"].tolist() == [45.5]
    table.write_text("image,age\ndark,20\ndark,80\n")
    for given in ([dark, table], [table]):
        with pytest.raises(DataError, match=r"dark.*: rows of one image differ in age, sex or site"):
            gather(given)
    with pytest.raises(DataError, match=r"patient\.csv does not exist"):
        gather([dark, folder / "patient.csv"])


def test_a_table_alone_names_its_images_relative_to_its_folder(folder, monkeypatch):
    dark, twin = folder / "images" / "dark.png", folder / "more" / "dark.png"
    twin.parent.mkdir()
    shutil.copy(dark, twin)
    (folder / "alone.csv").write_text("image,age\nimages/dark.png,55\nmore/dark.png,60\nbroken,7\nnowhere.jpg,8\n")
    cases = gather([folder / "alone.csv"])
    assert cases["image"].tolist() == [dark, twin, folder / "images" / "broken.jpg", folder / "nowhere.jpg"]
    assert cases["age_approx"].tolist() == [55, 60, 7, 8] and (cases["notes"] == "").all()
    monkeypatch.chdir(folder)
    assert gather([Path("images/broken.jpg"), Path("alone.csv")])["age_approx"].tolist() == [7]
    with pytest.raises(DataError, match=r"dark\.png.*: rows of one image differ"):  # file names alone do not tell which
        gather([twin, folder / "alone.csv"])
    (folder / "elsewhere").mkdir()  # where no image lies
    (folder / "elsewhere" / "t.csv").write_text(f"image,age\n{dark},55\n../more/dark.png,85+\n")
    cases = gather([folder / "elsewhere" / "t.csv"])
    assert [path.resolve() for path in cases["image"]] == [dark, twin] and cases["age_approx"].tolist() == [55, 85]
    (folder / "one.csv").write_text("image,age\ndark,55\n")
    (asked,) = gather([folder / "one.csv"]).itertuples()
    assert asked.image == folder / "dark" and "Several files have this name" in asked.notes  # none is guessed
    with pytest.raises(DataError, match=r"dark.*: a row of the table fits several images"):
        gather([dark, twin, folder / "one.csv"])


def test_the_command_writes_a_row_an_image_and_fails_only_if_none_could_be_read(app_run, tiny_run, folder, capsys, caplog):
    words = ["--progress", "no", "--out", "out/risks.csv"]
    assert main(["predict", str(app_run.path), str(folder / "images"), *words]) == 0  # the model may stand anywhere
    told = capsys.readouterr()
    assert "not for diagnosis" in told.out and "of 43: Age, sex and site are not known" in told.err
    assert "1 files are not read, as they are no images by their ending: '.txt'" in caplog.text
    assert main(["predict", str(folder), str(app_run.path), "--run", str(app_run.path)]) == 1
    assert "expected one model" in capsys.readouterr().err
    trained = app_run.splits.query("split == 'train'")["image_id"].iloc[0]
    shutil.copy(folder / "images" / "dark.png", f"{trained}.png")
    assert main(["predict", f"{trained}.png", str(app_run.path), "--progress", "no"]) == 0
    assert "1 of 1 images are named like images that the model was trained on" in caplog.text
    table = pd.read_csv("out/risks.csv")
    assert list(table) == ["image", "probability", "risk", "decision", "warnings", "model", "threshold", "prevalence"]
    assert len(table) == 43 and table["threshold"].tolist() == pytest.approx([app_run.operating_point.threshold] * 43, abs=1e-6)
    assert main(["predict", str(folder / "images" / "broken.jpg"), "nowhere.jpg", str(app_run.path), *words]) == 1
    assert "No such file" in capsys.readouterr().err
    for read, told in (
        (folder / "images" / "dark.png", "ends in .csv"),
        (folder / "patients.csv", "holds no answers"),
    ):
        before = read.read_bytes()
        assert main(["predict", str(folder), str(folder / "patients.csv"), str(app_run.path), *words[:3], str(read)]) == 1
        assert told in capsys.readouterr().err and read.read_bytes() == before
    Path("mine.csv").write_text("image,age\n")
    assert main(["predict", str(folder / "images"), str(app_run.path), *words[:3], "mine.csv"]) == 1
    assert "holds no answers" in capsys.readouterr().err and Path("mine.csv").read_text() == "image,age\n"
    os.mkfifo("pipe.csv")
    assert main(["predict", str(folder / "images" / "dark.png"), str(app_run.path), *words[:3], "pipe.csv"]) == 1
    assert Path("pipe.csv").is_fifo() and "name another one" in capsys.readouterr().err  # nothing is put in place of a device
    assert main(["predict", str(folder / "images" / "dark.png"), str(tiny_run.path), *words]) == 1
    assert "trained on synthetic cases" in capsys.readouterr().err
    assert pd.read_csv("out/risks.csv")[["probability", "risk"]].isna().all(axis=None)
