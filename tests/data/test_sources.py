import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melanoma_lib.data import vocabulary
from melanoma_lib.data.schema import SEXES, SITES
from melanoma_lib.data.sources import SOURCES, load_cases
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError, MissingImagesError, UnknownValueError
from tests.data.builders import case_table

HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
HAM_ROWS = (
    "HAM_1,ISIC_0000001,mel,histo,80.0,male,scalp\n"
    "HAM_1,ISIC_0000002,mel,histo,80.0,male,scalp\n"
    "HAM_2,ISIC_0000003,nv,follow_up,,unknown,unknown\n"
)
ISIC_2020 = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"


def put(root, files: dict[str, str | bytes]):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def images(*names: str, folder: str = "HAM10000_images_part_1", suffix: str = ".jpg") -> dict[str, str]:
    return {f"{folder}/{name}{suffix}": "" for name in names}


@pytest.fixture
def ham(tmp_path):
    return put(
        tmp_path,
        {"HAM10000_metadata.csv": HAM + HAM_ROWS}
        | images("ISIC_0000001", "ISIC_0000002")
        | images("ISIC_0000003", folder="ham10000_images_part_2", suffix=".JPG")
        | {"HAM10000_segmentations_lesion_tschandl/ISIC_0000001_segmentation.png": ""},
    )


def test_ham10000_becomes_a_case_table(ham):
    cases = load_cases("ham10000", ham)
    assert list(cases["image_id"]) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
    assert list(cases["target"]) == [1, 1, 0]
    assert list(cases["group_id"]) == ["lesion:HAM_1", "lesion:HAM_1", "lesion:HAM_2"]
    assert list(cases["anatom_site_general_challenge"].fillna("?")) == ["head/neck", "head/neck", "?"]
    assert list(cases["sex"].fillna("?")) == ["male", "male", "?"]
    assert list(cases["age_approx"].fillna(-1)) == [80, 80, -1]
    assert cases["image_path"][2].endswith("ham10000_images_part_2/ISIC_0000003.JPG")
    assert cases["mask_path"].notna().tolist() == [True, False, False]
    assert cases["patient_id"].isna().all()
    assert cases["acquisition"].isna().all()
    assert cases.attrs["leaky_columns"] == ["dx", "dx_type"]
    assert cases.attrs["absent_images"] == cases.attrs["dropped_images"] == 0


@pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.tab", "ham10000_METADATA.dataverse.csv"])
@pytest.mark.parametrize("mark", [",", "\t"])
def test_the_dataverse_table_is_preferred_under_each_of_its_names(ham, name, mark):
    lines = (HAM.strip() + ",dataset\n" + HAM_ROWS.replace("\n", ",rosendahl\n")).splitlines()
    quoted = "\n".join(mark.join(f'"{cell}"' for cell in line.split(",")) for line in lines)
    put(ham, {name: quoted})
    cases = load_cases("ham10000", ham)
    assert set(cases["acquisition"]) == {"rosendahl"}
    assert list(cases["target"]) == [1, 1, 0]


@pytest.mark.parametrize("folder", ["HAM10000_images", "images", "HAM10000_IMAGES_PART_2"])
def test_ham10000_images_may_lie_in_one_folder(tmp_path, folder):
    files = images("ISIC_0000001", "ISIC_0000002", "ISIC_0000003", folder=folder)
    put(tmp_path, {"HAM10000_metadata.csv": HAM + HAM_ROWS} | files)
    assert load_cases("ham10000", tmp_path)["image_path"].str.contains(folder).all()


@pytest.mark.parametrize(
    ("old", "new", "column", "table"),
    [
        ("scalp", "elbow", "localization", "HAM10000_SITES"),
        ("male", "diverse", "sex", "SEX_NAMES"),
        ("mel,histo", "lentigo,histo", "dx", "HAM10000_DIAGNOSES"),
        ("mel,histo", ",histo", "dx", "HAM10000_DIAGNOSES"),
    ],
)
def test_an_unknown_word_is_named_with_file_row_and_remedy(ham, old, new, column, table):
    second = HAM_ROWS.splitlines()[1]
    put(ham, {"HAM10000_metadata.csv": HAM + HAM_ROWS.replace(second, second.replace(old, new))})
    word = new.split(",")[0]
    expected = rf"HAM10000_metadata\.csv, row 3: {column} '{word}' is not known; expected one of \[.*{table} in"
    with pytest.raises(UnknownValueError, match=expected):
        load_cases("ham10000", ham)


def test_further_unknown_words_are_counted(ham):
    put(ham, {"HAM10000_metadata.csv": HAM + HAM_ROWS.replace("scalp", "elbow")})
    with pytest.raises(UnknownValueError, match=r"row 2: .*'elbow' is not known \(nor are 1 further rows\)"):
        load_cases("ham10000", ham)


@pytest.mark.parametrize(("age", "shown"), [("old", "'old' is not a number"), ("-3", "-3.0"), ("900", "900.0"), ("inf", "inf")])
def test_an_impossible_age_is_named_with_the_line_in_the_file(ham, age, shown):
    put(ham, {"HAM10000_metadata.csv": HAM + "\n" + HAM_ROWS.replace("80.0", age, 1)})
    with pytest.raises(DataError, match=f"(?s)HAM10000_metadata.csv.*'age_approx', row 3: {shown}"):
        load_cases("ham10000", ham)


def test_an_image_listed_twice_is_refused(ham):
    put(ham, {"HAM10000_metadata.csv": HAM + HAM_ROWS + HAM_ROWS.splitlines()[0]})
    with pytest.raises(DataError, match=r"(?s)'image_id', row 2: 'ISIC_0000001'; expected each image once.*row 5"):
        load_cases("ham10000", ham)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (HAM.encode(), "header but no rows"),
        ((HAM + "\n,,,,,,\n").encode(), "header but no rows"),
        ((HAM + HAM_ROWS).replace("dx,", "dia,").encode(), r"column \['dx'\] missing; expected .*found .*'dia'"),
        ((HAM + HAM_ROWS).encode("utf-16"), "UTF-8"),
        ((HAM + HAM_ROWS.replace("scalp", "scálp")).encode("latin-1"), "UTF-8"),
        ((HAM + HAM_ROWS + 'HAM_9,"ISIC_9').encode(), "cannot be read|absent|not known"),
    ],
)
def test_a_broken_table_gets_a_clear_error(ham, content, message):
    put(ham, {"HAM10000_metadata.csv": content})
    with pytest.raises(DataError, match=message):
        load_cases("ham10000", ham)


# --- images that are not there -----------------------------------------------------------------------------------------


def test_absent_images_are_counted_named_and_a_way_on_is_given(ham):
    (ham / "HAM10000_images_part_1/ISIC_0000002.jpg").unlink()
    with pytest.raises(MissingImagesError, match=r"1 of 3 images are absent \(ISIC_0000002\).*--missing-images drop"):
        load_cases("ham10000", ham)


def test_absent_images_can_be_dropped_and_are_reported(ham, caplog):
    (ham / "HAM10000_images_part_1/ISIC_0000002.jpg").unlink()
    with caplog.at_level(logging.WARNING, "melanoma_lib"):
        cases = load_cases("ham10000", ham, missing_images="drop")
    assert list(cases["image_id"]) == ["ISIC_0000001", "ISIC_0000003"]
    assert list(cases.index) == [0, 1]
    assert cases.attrs["dropped_images"] == 1
    assert "left out 1 of 3 cases" in caplog.text


def test_absent_images_can_be_kept_with_the_path_where_they_belong(ham):
    (ham / "HAM10000_images_part_1/ISIC_0000002.jpg").unlink()
    cases = load_cases("ham10000", ham, missing_images="keep")
    assert cases["image_path"][1] == str(ham / "HAM10000_images_part_1/ISIC_0000002.jpg")
    assert (cases.attrs["absent_images"], cases.attrs["dropped_images"]) == (1, 0)


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_without_any_image_there_is_nothing_to_go_on_with(tmp_path, policy):
    put(tmp_path, {"HAM10000_metadata.csv": HAM + HAM_ROWS})
    with pytest.raises(MissingImagesError, match=r"none of the 3 images .*HAM10000_images_part_1.*image_dirs"):
        load_cases("ham10000", tmp_path, missing_images=policy)


def test_arguments_are_checked(ham):
    with pytest.raises(ValueError, match="'ignore'; expected 'error', 'drop' or 'keep'"):
        load_cases("ham10000", ham, missing_images="ignore")
    with pytest.raises(DataError, match=r"'ham' is not known; expected one of \['synthetic', 'ham10000'"):
        load_cases("ham", ham)
    with pytest.raises(DataError, match=r"image_dirs: .*nowhere"):
        load_cases("ham10000", ham, image_dirs=[ham / "nowhere"])


# --- the wrong folder --------------------------------------------------------------------------------------------------


def test_a_wrong_folder_says_what_was_sought_what_is_there_and_where_to_look(ham, tmp_path_factory):
    with pytest.raises(DataError, match=r"no isic2020 folder: looked for train\.csv.*found HAM10000.*looks like ham10000"):
        load_cases("isic2020", ham)
    outer = tmp_path_factory.mktemp("outer")
    put(outer / "archive", {"train.csv": ISIC_2020})
    with pytest.raises(DataError, match=f"{outer}/archive has it: use that folder"):
        load_cases("isic2020", outer)
    with pytest.raises(DataError, match=f"{ham} has it: use that folder"):
        load_cases("ham10000", ham / "HAM10000_images_part_1")
    empty = outer / "archive" / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"found nothing\. `python -m melanoma_lib data fetch ham10000`"):
        load_cases("ham10000", empty)
    with pytest.raises(DataError, match="does not exist"):
        load_cases("ham10000", ham / "nowhere")
    with pytest.raises(DataError, match="is a file, not a folder"):
        load_cases("ham10000", ham / "HAM10000_metadata.csv")


# --- the other sources -------------------------------------------------------------------------------------------------


@pytest.fixture
def isic2019(tmp_path):
    metadata = "image,age_approx,anatom_site_general,lesion_id,sex\n"
    truth = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
    return put(
        tmp_path,
        {
            "ISIC_2019_Training_Metadata.csv": metadata
            + "ISIC_0000001_downsampled,55,lateral torso,BCN_0000001,female\n"
            + "ISIC_0000002,,,,\n"
            + "ISIC_0000003,40,palms/soles,HAM_0000001,male\n",
            "ISIC_2019_Training_GroundTruth.csv": truth
            + "ISIC_0000003,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0\n"
            + "ISIC_0000001_downsampled,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n"
            + "ISIC_0000002,0,0,1,0,0,0,0,0,0\n",
        }
        | images("ISIC_0000001_downsampled", "ISIC_0000002", "ISIC_0000003", folder="ISIC_2019_Training_Input"),
    )


def test_isic2019_joins_metadata_and_one_hot_truth_by_image(isic2019):
    cases = load_cases("isic2019", isic2019)
    assert list(cases["target"]) == [1, 0, 0]
    assert list(cases["diagnosis"]) == ["mel", "bcc", "unk"]
    assert list(cases["anatom_site_general_challenge"].fillna("?")) == ["torso", "?", "palms/soles"]
    assert list(cases["group_id"]) == ["lesion:BCN_0000001", "image:ISIC_0000002", "lesion:HAM_0000001"]
    assert list(cases["acquisition"].fillna("?")) == ["BCN", "?", "HAM"]
    assert "mel" in cases.attrs["leaky_columns"]


def test_isic2019_takes_images_from_further_folders(isic2019, tmp_path_factory):
    other = put(tmp_path_factory.mktemp("ham"), images("ISIC_0000001", "ISIC_0000003", folder="part"))
    for name in ("ISIC_0000001_downsampled", "ISIC_0000003"):
        (isic2019 / f"ISIC_2019_Training_Input/{name}.jpg").unlink()
    cases = load_cases("isic2019", isic2019, image_dirs=[other / "part"])
    assert cases["image_path"].str.startswith(str(other)).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ISIC_0000002,0,0,1", "ISIC_0000002,0,1,1", "row 4: expected one 1 among zeros"),
        ("ISIC_0000002,0,0,1", "ISIC_0000002,0,0,0", "row 4: expected one 1 among zeros"),
        ("ISIC_0000002,0,0,1", "ISIC_0000002,0,0,yes", "row 4: .*'yes'"),
        ("ISIC_0000002,0,0,1", "ISIC_0000009,0,0,1", r"2 are in one only \['ISIC_0000002', 'ISIC_0000009'\]"),
        ("ISIC_0000002,0,0,1", "ISIC_0000003,0,0,1,0,0,0,0,0,0\nISIC_0000002,0,0,1", "1 are repeated"),
    ],
)
def test_isic2019_truth_that_is_no_truth_is_refused(isic2019, old, new, message):
    path = isic2019 / "ISIC_2019_Training_GroundTruth.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        load_cases("isic2019", isic2019)


def test_isic2019_without_truth_is_refused(isic2019):
    (isic2019 / "ISIC_2019_Training_GroundTruth.csv").unlink()
    with pytest.raises(DataError, match=r"GroundTruth\.csv.*is missing"):
        load_cases("isic2019", isic2019)


@pytest.mark.parametrize("table", ["train.csv", "ISIC_2020_Training_GroundTruth_v2.csv"])
@pytest.mark.parametrize("folder", ["jpeg/train", "train"])
def test_isic2020_groups_by_patient(tmp_path, table, folder):
    rows = (
        "ISIC_0000001,IP_1,female,45.0,torso,unknown,benign,0\nISIC_0000002,IP_1,female,45.0,oral/genital,melanoma,malignant,1\n"
    )
    put(tmp_path, {table: ISIC_2020 + rows} | images("ISIC_0000001", "ISIC_0000002", folder=folder))
    cases = load_cases("isic2020", tmp_path)
    assert list(cases["group_id"]) == ["patient:IP_1"] * 2
    assert list(cases["target"]) == [0, 1]
    assert cases.attrs["leaky_columns"] == ["benign_malignant", "diagnosis", "target"]


@pytest.mark.parametrize(("diagnosis", "target"), [("nevus", "1"), ("melanoma", "0"), ("nevus", "")])
def test_isic2020_diagnosis_and_target_must_agree(tmp_path, diagnosis, target):
    put(tmp_path, {"train.csv": ISIC_2020 + f"ISIC_1,IP_1,male,30,torso,{diagnosis},benign,{target}\n"})
    with pytest.raises(DataError, match=f"row 2: diagnosis '{diagnosis}' means .* says '{target}'"):
        load_cases("isic2020", tmp_path)


def archive(root, rows: list[dict[str, str]]):
    """An export as isic-cli writes it: only columns that some row fills."""
    table = pd.DataFrame([{"isic_id": f"ISIC_{i}", "attribution": "Clinic A"} | row for i, row in enumerate(rows)])
    return put(root, {"metadata.csv": table.to_csv(index=False)} | {f"ISIC_{i}.jpg": "" for i in range(len(rows))})


MELANOMA = {"diagnosis_1": "Malignant", "diagnosis_2": "Malignant melanocytic proliferations (Melanoma)"}
NEVUS = {"diagnosis_1": "Benign", "diagnosis_2": "Benign melanocytic proliferations", "diagnosis_3": "Nevus"}
UNDECIDED = "Indeterminate melanocytic proliferations"


@pytest.mark.parametrize(
    ("row", "target", "diagnosis"),
    [
        (MELANOMA | {"diagnosis_3": "Melanoma in situ"}, 1, "Melanoma in situ"),
        (MELANOMA | {"diagnosis_3": "Melanoma metastasis"}, 1, "Melanoma metastasis"),
        (MELANOMA | {"diagnosis": "nevus", "benign_malignant": "benign"}, 1, MELANOMA["diagnosis_2"]),
        (NEVUS, 0, "Nevus"),
        ({"diagnosis_1": "Benign"}, 0, "Benign"),
        (
            {"diagnosis_1": "Malignant", "diagnosis_2": "Malignant epidermal proliferations"},
            0,
            "Malignant epidermal proliferations",
        ),
        (
            {"diagnosis_1": "Indeterminate", "diagnosis_2": "Indeterminate epidermal proliferations"},
            0,
            "Indeterminate epidermal proliferations",
        ),
        ({"diagnosis_1": "Indeterminate", "diagnosis_2": UNDECIDED}, None, UNDECIDED),
        ({"diagnosis_1": "Indeterminate", "benign_malignant": "benign"}, None, "Indeterminate"),
        ({"diagnosis_1": "Malignant"}, None, "Malignant"),
        ({"diagnosis_1": "Malignant", "diagnosis_2": "Collision - At least one malignant proliferation"}, None, ""),
        ({"diagnosis": "melanoma", "benign_malignant": "malignant"}, 1, "melanoma"),
        ({"diagnosis": "lentigo NOS"}, 0, "lentigo NOS"),
        ({"diagnosis": "AIMP", "benign_malignant": "benign"}, None, "AIMP"),
        ({"diagnosis": "other", "benign_malignant": "benign"}, 0, "benign"),
        ({"benign_malignant": "benign"}, 0, "benign"),
        ({"benign_malignant": "malignant"}, None, "malignant"),
        ({"benign_malignant": "indeterminate/benign"}, None, ""),
    ],
)
def test_isic_archive_rule_for_the_target(tmp_path, row, target, diagnosis):
    archive(tmp_path, [MELANOMA, NEVUS, row])
    cases = load_cases("isic_archive", tmp_path)
    if target is None:
        assert list(cases["image_id"]) == ["ISIC_0", "ISIC_1"]
        assert cases.attrs["dropped_rows"] == {"melanoma or not is undecided": 1}
    else:
        assert list(cases["target"]) == [1, 0, target]
        assert cases["diagnosis"][2] == diagnosis
        assert cases.attrs["dropped_rows"] == {}


def test_isic_archive_vocabulary_covers_the_archives_own_hierarchy():
    fields = pytest.importorskip("isic_metadata.fields", reason="isic-cli is not installed")
    pairs = {":".join([*value.split(":"), ""][:2]).casefold() for value in (d.value for d in fields.DiagnosisEnum)}
    assert pairs <= set(vocabulary.ISIC_ARCHIVE_DIAGNOSES)
    assert {d.value.casefold() for d in fields.LegacyDxEnum} - {"other"} == set(vocabulary.ISIC_ARCHIVE_LEGACY_DIAGNOSES)
    assert {s.value for s in fields.AnatomSiteGeneralEnum} <= set(vocabulary.ISIC_SITES)
    assert {s.value.split(":")[0].casefold() for s in fields.AnatomSiteEnum} <= set(vocabulary.ISIC_ARCHIVE_SITE_LEVELS)


@pytest.mark.parametrize(
    ("row", "site"),
    [
        ({"anatom_site_general": "anterior torso"}, "torso"),
        ({"anatom_site_1": "Trunk", "anatom_site_2": "Posterior trunk"}, "torso"),
        ({"anatom_site_1": "Upper extremity", "anatom_site_2": "Hand", "anatom_site_3": "Palm of hand"}, "palms/soles"),
        ({"anatom_site_1": "Head and neck", "anatom_site_3": "Face", "anatom_site_4": "Mouth"}, "oral/genital"),
        ({"anatom_site_1": "Upper extremity", "anatom_site_general": "palms/soles"}, "palms/soles"),
        ({}, "missing"),
    ],
)
def test_isic_archive_sites_from_either_column_family(tmp_path, row, site):
    cases = load_cases("isic_archive", archive(tmp_path, [NEVUS | row]))
    assert cases["anatom_site_general_challenge"].fillna("missing")[0] == site


def test_isic_archive_needs_no_column_but_the_diagnosis(tmp_path):
    cases = load_cases("isic_archive", archive(tmp_path, [NEVUS]))
    assert cases[["age_approx", "sex", "patient_id", "lesion_id"]].isna().all(axis=None)
    assert cases["group_id"][0] == "image:ISIC_0"
    assert cases["acquisition"][0] == "Clinic A"


def test_isic_archive_keeps_dermoscopy_only_and_caps_ages(tmp_path, caplog):
    rows = [
        NEVUS | {"image_type": "dermoscopic", "age_approx": "85+"},
        NEVUS | {"image_type": "TBP tile: close-up", "age_approx": "9"},
    ]
    with caplog.at_level(logging.WARNING, "melanoma_lib"):
        cases = load_cases("isic_archive", archive(tmp_path, rows))
    assert list(cases["age_approx"]) == [85]
    assert cases.attrs["dropped_rows"] == {"not a dermoscopic image": 1}
    assert "left out 1 of 2 rows" in caplog.text


def test_isic_archive_lesion_takes_its_patient_from_any_row(tmp_path):
    rows = [NEVUS | {"lesion_id": "IL_1", "patient_id": "IP_1"}, NEVUS | {"lesion_id": "IL_1"}]
    assert set(load_cases("isic_archive", archive(tmp_path, rows))["group_id"]) == {"patient:IP_1"}


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"sex": "male"}], DataError, "no diagnosis; expected values in diagnosis_1"),
        ([{"diagnosis_1": "Malignant"}], DataError, "none of the 1 rows .*undecided"),
        ([NEVUS | {"diagnosis_2": "Benign newcomer"}], UnknownValueError, "row 2: .* 'Benign:Benign newcomer'"),
        ([NEVUS | {"anatom_site_1": "Wing"}], UnknownValueError, "anatom_site_1 'Wing'.*ISIC_ARCHIVE_SITE_LEVELS"),
        ([{"diagnosis": "newcomer"}], UnknownValueError, "diagnosis 'newcomer'.*ISIC_ARCHIVE_LEGACY_DIAGNOSES"),
    ],
)  # fmt: skip
def test_isic_archive_faults_are_named(tmp_path, rows, error, message):
    with pytest.raises(error, match=message):
        load_cases("isic_archive", archive(tmp_path, rows))


def test_synthetic_reads_what_it_would_write(tmp_path):
    cases = case_table(
        [1, 0],
        patients=["7", "8"],
        true_risk=[0.8, 0.1],
        truth_style=["warm", "cool"],
        truth_hairs=[3, 0],
        truth_ink=[True, False],
    )
    cases["image_path"] = ["images/a.png", "images/b.png"]
    cases["mask_path"] = ["masks/a.png", None]
    put(tmp_path, {"cases.csv": cases.to_csv(index=False), "images/a.png": "", "images/b.png": "", "masks/a.png": ""})
    read = load_cases("synthetic", tmp_path)
    assert list(read["image_path"]) == [str(tmp_path / "images/a.png"), str(tmp_path / "images/b.png")]
    assert read["mask_path"].notna().tolist() == [True, False]
    assert list(read["patient_id"]) == ["7", "8"]
    assert list(read["group_id"]) == list(cases["group_id"])
    assert read["true_risk"].dtype == np.float64
    assert read["truth_hairs"].sum() == 3
    assert read["truth_ink"].sum() == 1  # booleans, not words
    assert list(read["truth_style"]) == ["warm", "cool"]
    (tmp_path / "images/b.png").unlink()
    with pytest.raises(MissingImagesError, match="1 of 2 images"):
        load_cases("synthetic", tmp_path)


def test_what_the_generator_writes_is_read_back_unchanged(tmp_path):
    generator = SyntheticDermoscopy(n_patients=5, image_size=32)
    read = load_cases("synthetic", generator.write(tmp_path / "synthetic"))
    paths = ["image_path", "mask_path"]
    pd.testing.assert_frame_equal(read.drop(columns=paths), generator.cases.drop(columns=paths), check_dtype=False)
    assert list(read["image_path"]) == [str(tmp_path / "synthetic" / name) for name in generator.cases["image_path"]]
    assert {column: read[column].dtype.kind for column in read} == {
        column: kind.kind for column, kind in generator.cases.dtypes.items()
    }


# --- parsing whatever people save ---------------------------------------------------------------------------------------

padding = st.sampled_from(["", " ", "  ", "\t"])
missing = st.sampled_from(["", "NA", "nan", "Unknown", " ", "None"])


def cell(words):
    def dress(word, left, right, style):
        return left + getattr(word, style)() + right

    known = st.builds(dress, st.sampled_from(sorted(words)), padding, padding, st.sampled_from(["lower", "upper", "title"]))
    return st.one_of(known, missing)


row = st.tuples(
    cell(vocabulary.HAM10000_SITES),
    cell(vocabulary.SEX_NAMES),
    st.sampled_from(sorted(vocabulary.HAM10000_DIAGNOSES)),
    st.one_of(missing, st.integers(0, 120).map(str), st.floats(0, 120).map(repr)),
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(row, min_size=1, max_size=8),
    mark=st.sampled_from([",", ";", "\t"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    blank=st.booleans(),
)
def test_any_dress_of_a_known_word_is_understood(tmp_path, rows, mark, newline, bom, blank):
    header = ["Lesion_ID", " image_id", "dx", "dx_type", "age", "sex ", "localization"]
    cells = [[f"HAM_{i}", f"ISIC_{i}", dx, "histo", age, sex, site] for i, (site, sex, dx, age) in enumerate(rows)]
    lines = [mark.join(f'"{value}"' for value in line) for line in cells]
    text = newline.join([mark.join(header), *([""] if blank else []), *lines, ""])
    put(tmp_path, {"HAM10000_metadata.csv": text.encode("utf-8-sig" if bom else "utf-8")})
    put(tmp_path, images(*(f"ISIC_{i}" for i in range(8))))
    cases = load_cases("ham10000", tmp_path)
    for (site, sex, dx, age), case in zip(rows, cases.itertuples(), strict=True):
        word = site.strip().lower()
        expected = vocabulary.HAM10000_SITES.get(word)  # None for every spelling of missing
        assert case.anatom_site_general_challenge == expected if expected else pd.isna(case.anatom_site_general_challenge)
        word = sex.strip().lower()
        assert case.sex == word if word in SEXES else pd.isna(case.sex)
        assert case.target == (dx == "mel")
        assert pd.isna(case.age_approx) if age.strip().lower() in vocabulary.MISSING else case.age_approx == float(age)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)), keep_header=st.booleans())
def test_no_content_whatever_escapes_as_a_foreign_error(tmp_path, content, keep_header):
    put(tmp_path, {"HAM10000_metadata.csv": (HAM.encode() if keep_header else b"") + content})
    with pytest.raises(DataError):
        load_cases("ham10000", tmp_path)


# --- real tables --------------------------------------------------------------------------------------------------------


def test_every_vocabulary_speaks_the_kits_words():
    for table in (vocabulary.HAM10000_SITES, vocabulary.ISIC_SITES, vocabulary.ISIC_ARCHIVE_SITE_LEVELS):
        assert set(table.values()) == set(SITES)
        assert all(name == name.lower() for name in table)
    assert len(SOURCES) == 5


def test_real_ham10000(ham10000_root):
    cases = load_cases("ham10000", ham10000_root)
    assert len(cases) == 10015
    assert cases["target"].sum() == 1113
    assert cases["group_id"].nunique() == 7470
    assert cases[["age_approx", "sex", "anatom_site_general_challenge"]].isna().sum().tolist() == [57, 57, 234]
    assert cases["mask_path"].notna().all()
    assert set(cases["acquisition"]) == {"vidir_molemax", "vidir_modern", "rosendahl", "vienna_dias"}


def test_real_isic2019_agrees_with_ham10000_where_they_overlap(shared_data):
    cases = load_cases("isic2019", shared_data / "isic2019", missing_images="keep").set_index("image_id")
    assert len(cases) == 25331
    assert cases["target"].sum() == 4522
    ham = load_cases("ham10000", shared_data / "ham10000").set_index("image_id")
    both = cases.loc[ham.index]
    assert (both["target"] == ham["target"]).all()
    assert (both["lesion_id"] == ham["lesion_id"]).all()
    site = "anatom_site_general_challenge"
    named = both[site].notna()
    assert named.sum() > 8000
    assert (both.loc[named, site] == ham.loc[named, site]).all()


def test_real_isic2020(shared_data):
    with pytest.raises(MissingImagesError, match="31991 of 33126 images are absent"):
        load_cases("isic2020", shared_data / "isic2020")
    cases = load_cases("isic2020", shared_data / "isic2020", missing_images="drop")
    assert (len(cases), cases["target"].sum(), cases["group_id"].nunique()) == (1135, 20, 60)
    table = load_cases("isic2020", shared_data / "isic2020", missing_images="keep")
    assert (len(table), table["target"].sum(), table["group_id"].nunique()) == (33126, 584, 2056)
    assert table[["anatom_site_general_challenge", "age_approx", "sex"]].isna().sum().tolist() == [527, 68, 65]
