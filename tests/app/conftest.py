"""One run, its services and one server process for all tests of the app."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from melanoma_lib.app.service import Service
from melanoma_lib.data.images import PAINTED
from melanoma_lib.explain.unlike import Reference
from melanoma_lib.export import export_run
from melanoma_lib.runs.run import SETTINGS, Run
from tests.app.live import Server

MARKS = PAINTED, PAINTED.replace(b"painted", b"brought")  # of a painted file; of one passed off as a photograph


def painted(lesion: bytes) -> bytes:
    return lesion.replace(*MARKS[::-1])


@pytest.fixture(scope="session")
def app_run(tiny_run, built_once, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the tiny run with its ONNX file and reference, passed off as one of photographs: the app may write there."""

    def build(folder: Path) -> None:
        run = Run(shutil.copytree(tiny_run.path, folder / "run"))
        Reference.of(run)
        (run.path / SETTINGS).write_text(run.settings.with_changes(source="ham10000").to_json(), encoding="utf-8")
        export_run(Run(run.path))

    made = built_once("app_run", build) / "run"
    return Run(shutil.copytree(made, tmp_path_factory.mktemp("app") / "run"))


@pytest.fixture(scope="session")
def service(app_run) -> Service:
    return Service(app_run)


@pytest.fixture(scope="session")
def server(app_run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    live = Server(app_run.path, tmp_path_factory.mktemp("live"))
    live.start()
    yield live
    live.stop()


@pytest.fixture(scope="session")
def test_cases(app_run, tiny_run, tmp_path_factory: pytest.TempPathFactory):
    """The run's test split as a case table, beside its predictions; its files no longer say that they are paintings."""
    cases = tiny_run.cases()
    cases = cases[cases["split"] == "test"].reset_index(drop=True)
    folder = tmp_path_factory.mktemp("unmarked")
    for path in map(Path, cases["image_path"]):
        (folder / path.name).write_bytes(path.read_bytes().replace(*MARKS))
    return cases.assign(image_path=[str(folder / Path(path).name) for path in cases["image_path"]]), app_run.predictions("test")


@pytest.fixture(scope="session")
def lesion(service, test_cases) -> bytes:
    """A file that the model was tested on and finds nothing odd about."""
    files = (Path(path).read_bytes() for path in test_cases[0]["image_path"])
    return next(data for data in files if not service.admit(data).warnings)
