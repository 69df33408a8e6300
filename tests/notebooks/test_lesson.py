import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.classroom.lesson import Lesson, find_lessons
from melanoma_lib.errors import LessonError, SettingsError
from tests.notebooks.mini import mini_lesson

DEFAULTS = {"profile": "fast", "seed": 0, "rate": 0.5, "shout": False, "run_dir": ""}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return Lesson(mini_lesson(tmp_path_factory.mktemp("fresh")))


def test_a_parameter_that_does_not_fit_is_refused_with_the_known_ones(fresh):
    with pytest.raises(LessonError, match="no parameter sed; it has: profile = 'fast', seed = 0"):
        fresh.with_defaults({"sed": "3"})
    with pytest.raises(LessonError, match="run_dir names a run to read, and there is none in /.*runs/misspelt"):
        fresh.with_defaults({"run_dir": "runs/misspelt"})


@given(
    st.dictionaries(st.sampled_from([*DEFAULTS, "other"]), st.text() | st.integers() | st.floats() | st.booleans() | st.none())
)
def test_any_value_is_either_read_as_its_type_or_refused(fresh, values):
    try:
        read = fresh.with_defaults(values)
    except (LessonError, SettingsError):
        return
    assert {name: type(value) for name, value in read.items()} == {name: type(value) for name, value in DEFAULTS.items()}


def test_lessons_are_found_by_name_number_and_path_and_what_is_none_is_named(tmp_path):
    path = mini_lesson(tmp_path)
    (tmp_path / "notes.ipynb").write_text("{}")
    for name in ("07_mini", "07", str(path)):
        assert [lesson.path for lesson in find_lessons([name], tmp_path)] == [path]
    assert [lesson.name for lesson in find_lessons((), tmp_path)] == ["07_mini"]
    with pytest.raises(LessonError, match="0 files fit '08', expected one; there are: 07_mini"):
        find_lessons(["08"], tmp_path)
    path.write_text("{not json")
    with pytest.raises(LessonError, match="expected a Jupyter notebook"):
        _ = Lesson(path).notebook
