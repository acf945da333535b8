"""The table command: what its options lead to, and which do not go together."""

from types import SimpleNamespace

import pytest

from irbridge import cli
from irbridge.commands import table
from irbridge.errors import UserError


def test_budgets_are_a_layout_with_a_plot(tmp_path, monkeypatch, capsys):
    shot = SimpleNamespace(save=lambda path, form: path.write_text(form))
    monkeypatch.setattr(table, "budgets", lambda folder, results: [f"{folder}: {results}"])
    monkeypatch.setattr(table, "budget_tables", lambda rows: rows)
    monkeypatch.setattr(table, "render", lambda rows, language: f"{language} of {rows[0]}")
    monkeypatch.setattr(table, "budget_plot", lambda rows, path: path.write_text(rows[0]))
    monkeypatch.setattr(table, "contender_picture", lambda rows: shot)
    plot, picture = tmp_path / "plot.png", tmp_path / "picture.png"
    cli.run("table", ["runs/efficiency", "--layout", "budgets", f"plot={plot}"])
    assert capsys.readouterr().out == f"markdown of runs/efficiency: results\nWrote: {plot}\n"
    assert plot.read_text() == "runs/efficiency: results"
    cli.run("table", ["runs", "layout=budgets", "results=drawn", f"picture={picture}"])
    assert capsys.readouterr().out == f"markdown of runs: drawn\nWrote: {picture}\n"
    assert picture.read_text() == "PNG"
    cli.run("table", ["runs", "layout=budgets", f"picture={tmp_path / 'p.JPG'}"])
    assert (tmp_path / "p.JPG").read_text() == "JPEG"


@pytest.mark.parametrize(
    "words, said",
    [
        (["x", "layout=budgets", "format=csv"], "layout=budgets does not go with format=csv"),
        (["x", "plot=a.png"], "plot= goes with layout=budgets"),
        (["x", "picture=a.png"], "picture= goes with layout=budgets"),
        (["x", "results=drawn"], "results= goes with layout=budgets"),
        (["x", "layout=task"], "did you mean tasks?"),
        (["x", "--format", "latx"], "did you mean latex?"),
        (["paper=table1", "plot=a.png"], "plot= does not go with paper="),
    ],
)
def test_what_does_not_go_together(words, said):
    with pytest.raises(UserError, match=said):
        cli.run("table", words)
