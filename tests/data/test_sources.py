import logging

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melanoma_lib.data.metadata import MISSING, NAMES
from melanoma_lib.data.sources import load_cases
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError, MissingImagesError

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
    assert cases[["patient_id", "acquisition"]].isna().all(axis=None)
    assert cases.attrs["absent_images"] == cases.attrs["dropped_images"] == 0
    for name, mark in (("ham10000_METADATA.dataverse.csv", ";"), ("HAM10000_metadata.tab", "\t"), ("HAM10000_metadata", ",")):
        lines = (HAM.strip() + ",dataset\n" + HAM_ROWS.replace("\n", f",{name}\n")).splitlines()
        put(ham, {name: "\n".join(mark.join(f'"{cell}"' for cell in line.split(",")) for line in lines)})
        assert set(load_cases("ham10000", ham)["acquisition"]) == {name}  # the edition that names the camera


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (HAM + HAM_ROWS, "", "cannot be read"),
        (HAM_ROWS, "\n,,,,,,\n", "expected a header and rows, found 1 filled lines"),
        ("scalp\nHAM_2", "scalp,old\nHAM_2", r"csv, row 3: 8 cells, 7 columns; quote a cell that holds ','"),
        (",ISIC_0000003,", ", ,", "csv: column 'image_id', row 4: ''; expected the name of an image"),
        ("localization", "localization, AGE ", "csv: column 'age' is there twice, letter case aside; keep one"),
        ("dx,", "dia,", r"column 'dx' missing; expected .*found .*'dia'"),
        ("scalp", "elbow", r"csv: column 'localization', row 2: 'elbow'; expected one of .*HAM10000_SITES in .*\(2 such rows\)"),
        ("mel,histo", ",histo", "csv: column 'dx', row 2: ''; expected one of"),
        ("80.0", "old", "csv.*'age_approx', row 2: 'old'; expected a number"),
        ("80.0", "900", "csv.*'age_approx', row 2: '900.0'; expected years"),
        ("02,mel", "01,nv", r"csv: expected each image once; 'ISIC_0000001' is in the rows 2, 3 with target 1, 0"),
    ],
)
def test_a_broken_table_is_named_with_row_value_and_remedy(ham, old, new, message):
    put(ham, {"HAM10000_metadata.csv": (HAM + HAM_ROWS).replace(old, new)})
    with pytest.raises(DataError, match=message):
        load_cases("ham10000", ham)


def test_absent_images_are_refused_dropped_or_kept(ham, caplog):
    absent = ham / "HAM10000_images_part_1/ISIC_0000002.jpg"
    for place, cure in (("nv/ISIC_0000002.jpg", "with image_dirs"), ("dcm/ISIC_0000002.dcm", "JPEG and PNG are read")):
        (ham / place).parent.mkdir()
        absent.rename(ham / place)
        with pytest.raises(MissingImagesError, match=rf"There is .*{place}: .*{cure}"):
            load_cases("ham10000", ham)
        (ham / place).rename(absent)
    absent.unlink()
    with pytest.raises(MissingImagesError, match=r"1 of 3 images are absent \('ISIC_0000002'\).*--missing-images drop"):
        load_cases("ham10000", ham)
    with caplog.at_level(logging.WARNING, "melanoma_lib"):
        dropped = load_cases("ham10000", ham, missing_images="drop")
    assert list(dropped["image_id"]) == ["ISIC_0000001", "ISIC_0000003"]
    assert list(dropped.index) == [0, 1]
    assert dropped.attrs["dropped_images"] == 1
    assert "left out 1 of 3 cases" in caplog.text
    assert "of 2 cases, the number without a value is {'age_approx': 1, 'sex': 1, 'anatom_site" in caplog.text
    kept = load_cases("ham10000", ham, missing_images="keep")
    assert kept["image_path"][1] == str(absent)
    assert (kept.attrs["absent_images"], kept.attrs["dropped_images"]) == (1, 0)
    many = "".join(f"HAM_{i},ISIC_{i},nv,histo,40,male,back\n" for i in range(30))
    put(ham, {"HAM10000_metadata.csv": HAM + many})
    with pytest.raises(MissingImagesError, match=r"30 of 30 images are absent .*'ISIC_9' and 20 more\).*part_1.*image_dirs"):
        load_cases("ham10000", ham, missing_images="drop")


def test_a_wrong_folder_says_what_was_sought_what_is_there_and_where_to_look(ham, tmp_path_factory):
    with pytest.raises(DataError, match=r"no isic2020 folder: looked for ISIC_2020.*csv.*found 'HAM10000.*looks like ham10000"):
        load_cases("isic2020", ham)
    outer = tmp_path_factory.mktemp("outer")
    put(outer / "archive", {"train.csv": ISIC_2020})
    (outer / "empty").mkdir()
    for source, folder, told in (
        ("isic2020", outer, f"{outer}/archive has it: use that folder"),
        ("ham10000", ham / "HAM10000_images_part_1", f"{ham} has it: use that folder"),
        ("ham10000", outer / "empty", r"found nothing\. data/README.md says how"),
        ("isic2020", outer / "archiv" / "x", r"archiv/x does not exist .*There is .*/archive; is that meant\?"),
        ("ham10000", outer / "nowhere", "nowhere does not exist .*with HAM10000_metadata .*data fetch"),
        ("ham", ham, r"'ham' is not known; expected one of \['synthetic', 'ham10000'"),
    ):
        with pytest.raises(DataError, match=told):
            load_cases(source, folder)
    with pytest.raises(DataError, match=r"image_dirs: .*nowhere"):
        load_cases("ham10000", ham, image_dirs=[ham / "nowhere"])


@pytest.fixture
def isic2019(tmp_path):
    metadata = (
        "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_0000001_downsampled,55,lateral torso,BCN_0000001,female\n"
        "ISIC_0000002,,,,\nISIC_0000003,40,palms/soles,HAM_0000001,male\n"
    )
    truth = (
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\nISIC_0000003,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0\n"
        "ISIC_0000001_downsampled,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\nISIC_0000002,0,0,1,0,0,0,0,0,0\n"
    )
    pictures = images("ISIC_0000001_downsampled", "ISIC_0000002", "ISIC_0000003", folder="ISIC_2019_Training_Input")
    return put(tmp_path, {"ISIC_2019_Training_Metadata.csv": metadata, "ISIC_2019_Training_GroundTruth.csv": truth} | pictures)


def test_isic2019_joins_metadata_and_one_hot_truth_and_takes_images_from_further_folders(isic2019, tmp_path_factory):
    other = put(tmp_path_factory.mktemp("ham"), images("ISIC_0000001", folder="part"))
    (isic2019 / "ISIC_2019_Training_Input/ISIC_0000001_downsampled.jpg").unlink()
    cases = load_cases("isic2019", isic2019, image_dirs=[other / "part"])
    assert cases["image_path"].str.startswith(str(other)).tolist() == [True, False, False]
    assert list(cases["target"]) == [1, 0, 0]
    assert list(cases["diagnosis"]) == ["mel", "bcc", "unk"]
    assert list(cases["anatom_site_general_challenge"].fillna("?")) == ["torso", "?", "palms/soles"]
    assert list(cases["group_id"]) == ["lesion:BCN_0000001", "image:ISIC_0000002", "lesion:HAM_0000001"]
    assert list(cases["acquisition"].fillna("?")) == ["BCN", "?", "HAM"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ISIC_0000002,0,1,1", r"GroundTruth\.csv: .*row 4: .*expected one 1 among zeros"),
        ("ISIC_0000002,0,0,yes", "row 4: .*'yes'"),
        ("ISIC_0000009,0,0,1", r"Metadata\.csv: .*row 3: 'ISIC_0000002'; expected an image of .*_GroundTruth\.csv"),
        ("ISIC_0000003,0,0,1,0,0,0,0,0,0\nISIC_0000002,0,0,1", "row 4: 'ISIC_0000003'; expected each image once"),
    ],
)
def test_isic2019_truth_that_is_no_truth_is_refused(isic2019, row, message):
    path = isic2019 / "ISIC_2019_Training_GroundTruth.csv"
    path.write_text(path.read_text().replace("ISIC_0000002,0,0,1", row))
    with pytest.raises(DataError, match=message):
        load_cases("isic2019", isic2019)
    path.unlink()
    with pytest.raises(DataError, match=r"GroundTruth\.csv cannot be read .*No such file"):
        load_cases("isic2019", isic2019)


def test_isic2018_reads_the_parts_that_are_there(tmp_path):
    """Tables in folders, as the archives unpack, the table of lesions beside them."""
    training, test = (f"ISIC2018_Task3_{part}_GroundTruth" for part in ("Training", "Test"))
    truth, lesions = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n", "ISIC2018_Task3_Training_LesionGroupings.csv"
    tables = {
        f"{training}/{training}.csv": truth + "ISIC_1,1.0,0.0,0.0,0.0,0.0,0.0,0.0\nISIC_2,1,0,0,0,0,0,0\n",
        lesions: "image,lesion_id\nISIC_2,HAM_1\nISIC_1,HAM_1\n",
        f"{test}/{test}.csv": truth + "ISIC_3,0,0,0,1,0,0,0\n",
    }
    put(tmp_path, tables | images("ISIC_1", "ISIC_2", folder="ISIC2018_Task3_Training_Input"))
    put(tmp_path, images("ISIC_3", folder="ISIC2018_Task3_Test_Input"))
    cases = load_cases("isic2018", tmp_path).set_index("image_id")
    assert cases["target"].to_dict() == {"ISIC_1": 1, "ISIC_2": 1, "ISIC_3": 0}
    assert list(cases["diagnosis"]) == ["mel", "mel", "akiec"]
    assert list(cases["group_id"]) == ["lesion:HAM_1", "lesion:HAM_1", "image:ISIC_3"]
    assert cases[["age_approx", "sex", "anatom_site_general_challenge", "patient_id", "mask_path"]].isna().all(axis=None)
    # The Dataverse's edition of the test table has metadata and lesions; it is taken in place of the one-hot one.
    dataverse = HAM.strip() + ",dataset\nHAMTEST_1,ISIC_3,akiec,histo,60,male,face,rosendahl\n"
    put(tmp_path, {f"{test}.tab": dataverse.replace(",", "\t")})
    cases = load_cases("isic2018", tmp_path).set_index("image_id")
    assert cases.loc["ISIC_3", ["age_approx", "sex", "anatom_site_general_challenge"]].tolist() == [60, "male", "head/neck"]
    assert len(cases) == 3 and cases.loc["ISIC_3", "group_id"] == "lesion:HAMTEST_1"
    (tmp_path / lesions).unlink()
    with pytest.raises(DataError, match=r"LesionGroupings\.csv cannot be read .*No such file"):
        load_cases("isic2018", tmp_path)


def test_isic2017_reads_all_parts_with_what_metadata_and_masks_there_are(tmp_path):
    truth, data = "image_id,melanoma,seborrheic_keratosis\n", "ISIC-2017_Training_Data"
    files = {
        "ISIC-2017_Training_Part3_GroundTruth.csv": truth + "ISIC_1,1.0,0.0\nISIC_2,0.0,1.0\nISIC_3,0.0,0.0\n",
        f"{data}/{data}_metadata.csv": "image_id,age_approximate,sex\nISIC_3,unknown,unknown\nISIC_1,55,female\n",
        "ISIC-2017_Test_v2_Part3_GroundTruth.csv": truth + "ISIC_4,0.0,0.0\n",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_1_segmentation.png": "",
        f"{data}/ISIC_1_superpixels.png": "",
    }
    put(tmp_path, files | images("ISIC_1", "ISIC_2", "ISIC_3", folder=data) | images("ISIC_4", folder="ISIC-2017_Test_v2_Data"))
    cases = load_cases("isic2017", tmp_path)
    assert list(cases["target"]) == [1, 0, 0, 0]
    assert list(cases["diagnosis"]) == ["melanoma", "seborrheic keratosis", "nevus", "nevus"]
    assert list(cases["age_approx"].fillna(-1)) == [55, -1, -1, -1]
    assert list(cases["sex"].fillna("?")) == ["female", "?", "?", "?"]
    assert list(cases["mask_path"].notna()) == [True, False, False, False]
    assert list(cases["group_id"]) == [f"image:ISIC_{i}" for i in range(1, 5)]
    put(tmp_path, {"ISIC-2017_Training_Part3_GroundTruth.csv": truth + "ISIC_1,1.0,0.0\nISIC_2,1.0,1.0\n"})
    with pytest.raises(DataError, match=r"Training_Part3_GroundTruth.csv: .*row 3: .*expected at most one 1"):
        load_cases("isic2017", tmp_path)


@pytest.mark.parametrize(
    ("table", "folder"),
    [("train.csv", "jpeg/train"), ("ISIC_2020_Training_GroundTruth_v2.csv", "train"), ("train.csv", "images")],
)
def test_isic2020_groups_by_patient(tmp_path, table, folder):
    rows = "ISIC_1,IP_1,female,45.0,torso,unknown,benign,0\nISIC_2,IP_1,female,45.0,oral/genital,melanoma,malignant,1\n"
    put(tmp_path, {table: ISIC_2020 + rows} | images("ISIC_1", "ISIC_2", folder=folder))
    cases = load_cases("isic2020", tmp_path)
    assert list(cases["group_id"]) == ["patient:IP_1"] * 2
    assert list(cases["target"]) == [0, 1]
    put(tmp_path, {table: ISIC_2020 + rows.replace("malignant,1", "malignant,0")})
    with pytest.raises(DataError, match=r"'target', row 3: '0'; expected 1 where the diagnosis is melanoma"):
        load_cases("isic2020", tmp_path)


def archive(root, rows: list[dict[str, str]]):
    """An export as isic-cli writes it: only columns that some row fills."""
    table = pd.DataFrame([{"isic_id": f"ISIC_{i}", "attribution": "Clinic A"} | row for i, row in enumerate(rows)])
    return put(root, {"metadata.csv": table.to_csv(index=False)} | {f"ISIC_{i}.jpg": "" for i in range(len(rows))})


FINEST = ("diagnosis_3", "diagnosis_2", "diagnosis_1")
MELANOMA = {"diagnosis_1": "Malignant", "diagnosis_2": "Malignant melanocytic proliferations (Melanoma)"}
NEVUS = {"diagnosis_1": "Benign", "diagnosis_2": "Benign melanocytic proliferations", "diagnosis_3": "Nevus"}


@pytest.mark.parametrize(
    ("row", "target"),
    [
        (MELANOMA | {"diagnosis_3": "Melanoma in situ"}, 1),
        (NEVUS, 0),
        ({"diagnosis_1": "Malignant", "diagnosis_2": "Malignant epidermal proliferations"}, 0),
        ({"diagnosis_1": "Indeterminate", "diagnosis_2": "Indeterminate epidermal proliferations"}, 0),
        ({"diagnosis_1": "Indeterminate", "diagnosis_2": "Indeterminate melanocytic proliferations"}, None),
        ({"diagnosis_1": "Malignant"}, None),
        ({"diagnosis_1": "Malignant", "diagnosis_2": "Collision - At least one malignant proliferation"}, None),
        ({"diagnosis": "nevus", "benign_malignant": "benign"}, None),
    ],
)
def test_isic_archive_rule_for_the_target(tmp_path, row, target):
    cases = load_cases("isic_archive", archive(tmp_path, [MELANOMA, NEVUS, row]))
    if target is None:
        assert list(cases["image_id"]) == ["ISIC_0", "ISIC_1"]
        assert cases.attrs["dropped_rows"] == {"melanoma or not is undecided": 1}
    else:
        assert list(cases["target"]) == [1, 0, target]
        assert cases["diagnosis"][2] == next(row[name] for name in FINEST if name in row)


def test_isic_archive_vocabulary_covers_the_archives_own_hierarchy():
    fields = pytest.importorskip("isic_metadata.fields", reason="isic-cli is not installed")
    pairs = {":".join([*value.split(":"), ""][:2]).casefold() for value in (d.value for d in fields.DiagnosisEnum)}
    assert pairs <= set(NAMES["ISIC_ARCHIVE_DIAGNOSES"])
    assert {s.value for s in fields.AnatomSiteGeneralEnum} <= set(NAMES["ISIC_SITES"])
    assert {s.value.split(":")[0].casefold() for s in fields.AnatomSiteEnum} <= set(NAMES["ISIC_ARCHIVE_SITE_LEVELS"])


def test_isic_archive_keeps_dermoscopy_only_caps_ages_joins_a_lesion_to_its_patient_and_knows_sites(tmp_path):
    hand = {"anatom_site_1": "Upper extremity", "anatom_site_2": "Hand", "anatom_site_3": "Palm of hand"}
    rows = [
        NEVUS | {"image_type": "dermoscopic", "age_approx": "85+", "lesion_id": "IL_1", "patient_id": "IP_1"} | hand,
        NEVUS | {"image_type": "TBP tile: close-up", "age_approx": "9"},
        NEVUS | {"lesion_id": "IL_1", "anatom_site_1": "Trunk"},
        NEVUS | {"lesion_id": "IL_1", "anatom_site_1": "Upper extremity", "anatom_site_general": "anterior torso"},
    ]
    cases = load_cases("isic_archive", archive(tmp_path, rows))
    assert list(cases["image_id"]) == ["ISIC_0", "ISIC_2", "ISIC_3"]
    assert list(cases["anatom_site_general_challenge"]) == ["palms/soles", "torso", "torso"]
    assert cases["age_approx"][0] == 85 and cases["sex"].isna().all()
    assert set(cases["group_id"]) == {"patient:IP_1"}
    assert set(cases["acquisition"]) == {"Clinic A"}
    assert cases.attrs["dropped_rows"] == {"not a dermoscopic image": 1}
    with pytest.raises(DataError, match=r"none of the 1 rows .*undecided"):
        load_cases("isic_archive", archive(tmp_path, [{"diagnosis_1": "Malignant"}]))


def test_what_the_generator_writes_is_read_back_unchanged(tmp_path):
    generator = SyntheticDermoscopy(n_patients=5, image_size=32)
    read = load_cases("synthetic", generator.write(tmp_path / "synthetic"))
    paths = ["image_path", "mask_path"]
    pd.testing.assert_frame_equal(read.drop(columns=paths), generator.cases.drop(columns=paths), check_dtype=False)
    assert list(read["image_path"]) == [str(tmp_path / "synthetic" / name) for name in generator.cases["image_path"]]
    assert [kind.kind for kind in read.dtypes] == [kind.kind for kind in generator.cases.dtypes]


@pytest.mark.parametrize("dress", [str.upper, lambda word: f" {word.title()}\t"])
@pytest.mark.parametrize(
    ("mark", "newline", "encoding"),
    [(",", "\n", "utf-8"), (";", "\r\n", "utf-8-sig"), ("\t", "\n\n", "utf-8"), ("|", "\n", "utf-8")],
)
def test_any_dress_of_a_known_word_is_understood(tmp_path, mark, newline, encoding, dress):
    sites = [*NAMES["HAM10000_SITES"], *sorted(MISSING)]
    sexes, ages = ["female", "m", "NA", "unknown", "f", "male"], ["0", "85.0", "nan", " ", "120"]
    lines = [["Lesion_ID", " image_id", "dx", "dx_type", "age", "sex ", "localization"]]
    for i, site in enumerate(sites):
        lines.append([f"HAM_{i}", f"ISIC_{i}", ["nv", "mel"][i % 2], "histo", ages[i % 5], dress(sexes[i % 6]), dress(site)])
    text = newline.join(mark.join(f'"{value}"' for value in line) for line in lines)
    put(tmp_path, {"HAM10000_metadata.csv": text.encode(encoding)} | images(*(f"ISIC_{i}" for i in range(len(sites)))))
    cases = load_cases("ham10000", tmp_path)
    known = [NAMES["HAM10000_SITES"].get(site, "?") for site in sites]
    assert cases["anatom_site_general_challenge"].fillna("?").tolist() == known
    assert cases["sex"].fillna("?").tolist() == [["female", "male", "?", "?", "female", "male"][i % 6] for i in range(len(sites))]
    assert cases["age_approx"].fillna(-1).tolist() == [[0, 85, -1, -1, 120][i % 5] for i in range(len(sites))]
    assert cases["target"].tolist() == [i % 2 for i in range(len(sites))]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)), keep_header=st.booleans())
def test_no_content_whatever_escapes_as_a_foreign_error(tmp_path, content, keep_header):
    put(tmp_path, {"HAM10000_metadata.csv": (HAM.encode() if keep_header else b"") + content})
    with pytest.raises(DataError):
        load_cases("ham10000", tmp_path)


def test_real_ham10000(ham10000_root):
    cases = load_cases("ham10000", ham10000_root)
    assert (len(cases), cases["target"].sum(), cases["group_id"].nunique()) == (10015, 1113, 7470)
    assert cases[["age_approx", "sex", "anatom_site_general_challenge"]].isna().sum().tolist() == [57, 57, 234]
    assert cases["mask_path"].notna().all()
    assert set(cases["acquisition"]) == {"vidir_molemax", "vidir_modern", "rosendahl", "vienna_dias"}


def test_real_isic2020(shared_data):
    cases = load_cases("isic2020", shared_data / "isic2020", missing_images="drop")
    assert (len(cases), cases["target"].sum(), cases["group_id"].nunique()) == (1135, 20, 60)
    table = load_cases("isic2020", shared_data / "isic2020", missing_images="keep")
    assert (len(table), table["target"].sum(), table["group_id"].nunique()) == (33126, 584, 2056)
    assert table[["anatom_site_general_challenge", "age_approx", "sex"]].isna().sum().tolist() == [527, 68, 65]
