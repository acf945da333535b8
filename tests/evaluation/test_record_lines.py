"""Whatever a file of records holds: rows, or one sentence that names file and line."""

import json
import os

import pytest
from conftest import save_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irbridge.errors import UserError
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About, read_records
from irbridge.evaluation.rows import aggregate
from irbridge.evaluation.saved_images import saved_rows
from irbridge.reports.html_page import page
from irbridge.reports.plots import nfe_lines
from irbridge.reports.sampler_table import sampler_table
from irbridge.reports.table import by_comparison, comparisons, figures, render
from irbridge.reports.task_table import by_task, task_figures

LINE = {
    "name": "a",
    "row": "ours",
    "psnr": 30.0,
    "ssim": 0.9,
    "lpips": 0.1,
    "task": "derain",
    "protocol": "rgb, 8 bit, crop 0, reference clean",
    "seed": 0,
    "size": 96,
    "nfe": 3,
    "data": "held-back images",
    "method": "irbridge",
    "weights": "0123456789ab",
    "seconds": 0.5,
    "bridge": "goub",
    "rule": "mean",
    "spacing": "uniform",
    "content": {"clean": "c", "degraded": "d", "settings": "s"},
    "png": "0123",
    "beside": {"clean": "4567"},
    "scored_by": {"psnr": "x"},
    "metrics": {"mae": 2.0},
    "headings": {"mae": {"name": "MAE", "digits": 2, "higher_is_better": False}},
}
ODD = [
    None, True, 0, -1, 5, 10**30, 10**400, 1e300, -0.0, 1.5, float("nan"), float("inf"), "", "x",
    "../a", "/etc/passwd", "a" * 300, "=1+1", "<b>", "\u0000", "\ud800", "\udce9", "\u202e",
    "earlier", [], [1], [[]], {}, {"x": None}, {"x": 1}, {"": ""}, {"clean": 1}, {"x": {"x": {}}},
    {"mae": {"name": "", "digits": 99, "higher_is_better": 1}}, {"mae": {"x": None}},
]  # fmt: skip
KEYS = [*LINE, "run", "machine", "commit", "outputs", "new"]
lines_of_json = st.builds(
    lambda changes, dropped: {k: v for k, v in (LINE | changes).items() if k not in dropped},
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(ODD), max_size=3),
    st.sets(st.sampled_from(KEYS), max_size=1),
)
files = st.lists(
    st.one_of(
        lines_of_json.map(lambda line: json.dumps(line).encode()),
        st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
        st.sampled_from([b"[" * 100_000, b"9" * 6000, b"{" * 30, json.dumps(LINE).encode()[:-9]]),
    ),
    max_size=3,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b""])
STARTS = st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\n"])


def everything(folder):
    """All that tables are made of."""
    records = read_records(folder)
    rows = aggregate(records)
    for form in ("markdown", "latex", "csv", "html"):
        render(by_comparison(rows), form).encode()
        render(by_task(rows), form).encode()
    render([*figures(rows), *task_figures(rows)], "csv").encode()
    page(folder).encode()
    list(saved_rows(folder))
    for panel in comparisons([row for row in rows if row.nfe is not None]):
        nfe_lines(panel)
    return rows


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(files, STARTS, ENDS)
def test_any_lines_give_rows_or_one_sentence(tmp_path, lines, start, end):
    folder = tmp_path / "results/ours"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").write_bytes(start + (end or b"\n").join(lines) + end)
    save_images(folder, 1)
    try:
        everything(tmp_path)
    except UserError as error:
        said = str(error)
        assert len(said) < 600 and said.endswith(".") and "Error" not in said, said
        assert any(place in said for place in ("records.jsonl, line", "no records below", "'")), (
            said
        )


@settings(max_examples=60, derandomize=True, deadline=None)
@given(lines_of_json, lines_of_json)
def test_the_table_of_samplers_too(first, second):
    from irbridge.evaluation.records import Record

    try:
        records = [Record.from_json(line) for line in (first, second)]
        sampler_table(records).render("markdown").encode()
    except (UserError, ValueError) as error:
        assert str(error)


@pytest.mark.parametrize(
    "content, said",
    [
        (json.dumps(LINE | {"seconds": -1}) + "\n", "seconds=-1 is negative"),
        (json.dumps(LINE | {"psnr": float("nan")}) + "\n", "psnr is no number"),
        ('{"psnr": ' + "1" * 5000 + "}\n", "a number of thousands of digits"),
        (json.dumps(LINE | {"new": json.loads("[" * 30 + "]" * 30)}) + "\n", "nested too deeply"),
        ("{name: 1}\n", "no JSON: .* at column 2"),
        (json.dumps(LINE).encode("utf-16"), "no UTF-8 text"),
        (b"\x80\n", "no UTF-8 text"),
        (json.dumps(LINE | {"nfe": 10**9}) + "\n", "nfe is not from 0 to 1000000"),
        (json.dumps(LINE | {"metrics": {"=1": 2}}) + "\n", "metrics.=1 is described as 1"),
        ("7", "no JSON object"),  # whole, though without its newline
    ],
    ids=range(10),
)
def test_what_is_wrong_is_told(tmp_path, content, said):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"records.jsonl, line 1, is no record .*{said}"):
        read_records(tmp_path)


def test_a_line_that_was_cut_short_is_passed_over_and_said(tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    path.write_text("\ufeff" + json.dumps(LINE) + "\r\n" + json.dumps(LINE)[:-3], "utf-8")
    assert len(read_records(tmp_path)) == 1
    assert f"{path}, line 2, was cut short; passed over." in capsys.readouterr().err


def test_files_of_other_names_are_not_read_and_not_removed(tmp_path):
    class One:
        names = ["a"]

        def __getitem__(self, index):
            raise AssertionError

    (tmp_path / "x").mkdir()
    for name in ("records-old.jsonl", "records.backup.jsonl", "records-.jsonl"):
        (tmp_path / "x" / name).write_text("not irbridge's\n")
    list(evaluate(None, One(), Protocol(), tmp_path / "x", About("x"), limit=0))
    assert len(list((tmp_path / "x").glob("records*"))) == 3
    with pytest.raises(UserError, match="no records below"):
        read_records(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe cannot be made here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "records.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_records(tmp_path)
