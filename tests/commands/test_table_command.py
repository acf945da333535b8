"""The table command: what its options lead to, and which do not go together."""

import pytest

from irbridge import cli
from irbridge.commands import table
from irbridge.errors import UserError


def test_budgets_are_a_layout_with_a_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "budgets", lambda folder: [str(folder)])
    monkeypatch.setattr(table, "budget_tables", lambda rows: rows)
    monkeypatch.setattr(table, "render", lambda rows, language: f"{language} of {rows[0]}")
    monkeypatch.setattr(table, "budget_plot", lambda rows, path: path.write_text(rows[0]))
    plot = tmp_path / "plot.png"
    cli.run("table", ["runs/efficiency", "--layout", "budgets", f"plot={plot}"])
    assert capsys.readouterr().out == f"markdown of runs/efficiency\nWrote: {plot}\n"
    assert plot.read_text() == "runs/efficiency"


@pytest.mark.parametrize(
    "words, said",
    [
        (["x", "layout=budgets", "format=csv"], "layout=budgets does not go with format=csv"),
        (["x", "plot=a.png"], "plot= goes with layout=budgets"),
        (["x", "layout=task"], "did you mean tasks?"),
        (["x", "--format", "latx"], "did you mean latex?"),
        (["paper=table1", "plot=a.png"], "plot= does not go with paper="),
    ],
)
def test_what_does_not_go_together(words, said):
    with pytest.raises(UserError, match=said):
        cli.run("table", words)
