"""The plot of LPIPS against PSNR: which rows are one line, and in which order."""

from types import SimpleNamespace

from irbridge.reports.plots import perception_lines


def row(label, psnr, lpips, nfe=None, run=""):
    return SimpleNamespace(row=label, nfe=nfe, run=run, scores={"psnr": psnr, "lpips": lpips})


def test_a_line_is_a_method_at_several_numbers_of_calls():
    named = "Stochastic refinement (posterior, {} calls)"
    mean = named + ", mean of 8 samples"
    panel = [
        row(named.format(50), 19.0, 0.1, 50),
        row(mean.format(50), 21.5, 0.3, 400),
        row(named.format(2), 21.0, 0.4, 2),
        row(mean.format(2), 21.2, 0.41, 16),
        row("Predictor g(y) alone", 22.0, 0.5),
        row("Predictor g(y) alone", 22.0, 0.5),  # scored with every number of calls
    ]
    assert perception_lines(panel) == {
        "Stochastic refinement (posterior)": [("2", (21.0, 0.4)), ("50", (19.0, 0.1))],
        "Stochastic refinement (posterior), mean of 8 samples": [
            ("2", (21.2, 0.41)),
            ("50", (21.5, 0.3)),
        ],
        "Predictor g(y) alone": [("", (22.0, 0.5))],
    }


def test_rows_of_one_name_from_two_runs_are_two_lines():
    panel = [
        row("Stochastic refinement (posterior, 4 calls)", 20.0 + k, 0.1, 4, run)
        for k, run in enumerate(("joint", "frozen"))
    ]
    assert perception_lines(panel) == {
        "Stochastic refinement (posterior) [joint]": [("4", (20.0, 0.1))],
        "Stochastic refinement (posterior) [frozen]": [("4", (21.0, 0.1))],
    }
