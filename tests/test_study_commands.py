"""What a study's command writes is whole or not there."""

from types import SimpleNamespace

import pytest

from melanoma_lib.__main__ import main
from melanoma_lib.studies import backbones, pareto
from melanoma_lib.studies.results import load_results
from tests.studies.leagues import made_up


def test_a_league_killed_while_it_draws_keeps_the_figure_that_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "league", lambda *_, **__: made_up())
    command = ["study", "league", "--source", "synthetic", "--out", str(tmp_path)]
    assert main(command) == 0
    drawn = (tmp_path / "league.png").read_bytes()
    assert drawn.startswith(b"\x89PNG") and load_results("league", tmp_path).rows

    def half(file, **_):
        with file.open("wb") as opened:
            opened.write(drawn[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(pareto, "pareto_figure", lambda _: SimpleNamespace(savefig=half, alt_text=""))
    with pytest.raises(KeyboardInterrupt):
        main(command)
    assert (tmp_path / "league.png").read_bytes() == drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == ["league.json", "league.png"]
