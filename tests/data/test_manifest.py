"""list, check and manifest of public sets, on miniature trees."""

import json
import os
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from public_trees import BOTH, tree

from irbridge import cli
from irbridge.assets import shipped
from irbridge.data.manifest import FIELDS, check, manifest
from irbridge.data.public_sets import BENCHMARKS
from irbridge.errors import UserError

LOL = [
    f"{folder}/{side}/{k}.png"
    for folder, k in (("our485", 1), ("our485", 3), ("eval15", 2))
    for side in ("high", "low")
]


@pytest.fixture
def lol(tmp_path, monkeypatch):
    """A miniature of LOL, and the number of pairs that is expected of it."""
    small = replace(BENCHMARKS["lol"], counts={"LOL v1 train": 2, "LOL v1": 1})
    monkeypatch.setitem(BENCHMARKS, "lol", small)
    return tree(tmp_path / "LOL", *LOL)


def test_the_list_says_how_to_ask_for_every_set(command):
    status, out, err = command("prepare_data", "list")
    assert status == 0 and not err
    for name, known_set in BENCHMARKS.items():
        train = f"irbridge train task={known_set.task} data.benchmark={name} data.root=DIR"
        assert (train in out) == (
            known_set.only != "test"
        ) and f"benchmark={name} data.root=DIR size=null" in out
        # there is an adapter for the task, or the command needs a run
        whose = f"task={known_set.task}" if known_set.task in shipped() else "run=RUN"
        assert f"irbridge evaluate {whose} benchmark={name} data.root=DIR" in out
        assert all(
            word in out
            for word in (known_set.layout, known_set.rule, known_set.source, known_set.terms)
        )
        assert all(f"{count:,}" in out for count in known_set.counts.values())


def test_all_is_right(command, lol):
    status, out, err = command("prepare_data", "check", "lol", lol)
    assert status == 0 and not err and "WRONG" not in out
    assert out.splitlines()[0] == "ok    LOL v1 train: 2 pairs, as expected"
    assert [line[:5].strip() for line in out.splitlines()] == ["ok"] * 4
    status, out, _ = command("prepare_data", "check", "lol", lol, "split=test")
    assert status == 0 and len(out.splitlines()) == 2 and "LOL v1: 1 pairs" in out


@pytest.mark.parametrize("name, train, test, trained, tested", BOTH)
def test_counts_that_differ_are_told(tmp_path, name, train, test, trained, tested):
    findings = check(name, tree(tmp_path / "set", *train, *test))
    title, counts = BENCHMARKS[name].title, BENCHMARKS[name].counts
    assert len(findings) == 4
    for (count, headers), half, pairs in (
        (findings[:2], f"{title} train", trained),
        (findings[2:], title, tested),
    ):
        assert f"{half}: {len(pairs)} " in count[1] and count[0] == (half not in counts)
        assert half not in counts or str(counts[half]) in count[1]
        assert headers[0] and "every header opens" in headers[1]


def test_a_damaged_image_is_told(command, lol):
    (lol / "our485/low/3.png").write_bytes(b"no image")
    status, out, _ = command("prepare_data", "check", "lol", lol)
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert status == 1 and len(wrong) == 1 and "low/3.png" in wrong[0]


def test_a_manifest_has_the_hashes_of_the_files_in_one_order(command, lol, tmp_path):
    status, out, _ = command("prepare_data", "manifest", "lol", lol, "output=lists/lol.jsonl")
    assert status == 0 and out == "Wrote: lists/lol.jsonl\n"
    text = (tmp_path / "lists/lol.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert [(r["split"], r["name"]) for r in records] == [
        ("train", "1"),
        ("train", "3"),
        ("test", "2"),
    ]
    for record in records:
        for side in ("clean", "degraded"):
            assert record[f"{side}_sha256"] == sha256((lol / record[side]).read_bytes()).hexdigest()
    assert {r[s] for r in records for s in ("clean", "degraded")} == set(LOL)
    assert command("prepare_data", "manifest", "lol", f"{lol}/.")[1] == text
    assert (
        command("prepare_data", "manifest", "lol", lol, "split=test")[1]
        == text.splitlines(keepends=True)[2]
    )
    status, out, _ = command("prepare_data", "check", "lol", lol, "manifest=lists/lol.jsonl")
    assert status == 0 and "6 files with the hashes" in out
    assert (
        command("prepare_data", "check", "lol", lol, "manifest=lists/lol.jsonl", "split=test")[0]
        == 0
    )


def _change(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "fault, words",
    [
        (lambda root: _change(root / "our485/high/3.png"), ["our485/high/3.png has another hash"]),
        (lambda root: (root / "eval15/low/2.png").unlink(), ["eval15/low/2.png is missing"]),
        (
            lambda root: (root / "our485/low/3.png").unlink(),
            ["our485/low/3.png is missing", "has no partner"],
        ),
        (
            lambda root: [p.unlink() for p in root.rglob("3.png")],
            ["3.png is missing (and 1 more)", "1 pairs, expected are 2"],
        ),
        (
            lambda root: tree(root, "eval15/high/9.png", "eval15/low/9.png"),
            ["/9.png is not in the manifest (and 1 more)"],
        ),
    ],
)
def test_a_manifest_names_the_first_file_that_is_wrong(command, lol, tmp_path, fault, words):
    command("prepare_data", "manifest", "lol", lol, "output=lol.jsonl")
    fault(lol)
    status, out, err = command("prepare_data", "check", "lol", lol, "manifest=lol.jsonl")
    wrong = "\n".join(line for line in out.splitlines() if line.startswith("WRONG"))
    assert status == 1 and not err and all(word in wrong for word in words)


def test_clean_images_alone_and_shared_ones(tmp_path):
    faces = manifest("celebahq", tree(tmp_path / "faces", "1.png", "2.png"))
    assert [r["clean"] for r in faces] == ["1.png", "2.png"]
    assert {(r["degraded"], r["degraded_sha256"]) for r in faces} == {(None, None)}
    path = tmp_path / "faces.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in faces))
    assert all(right for right, _ in check("celebahq", tmp_path / "faces", manifest=path))
    haze = manifest(
        "reside_ots", tree(tmp_path / "ots", "clear/1.png", "haze/1_1_0.1.png", "haze/1_1_0.2.png")
    )
    assert [r["clean"] for r in haze] == ["clear/1.png"] * 2 and {r["split"] for r in haze} == {
        "train"
    }


def test_a_manifest_is_written_whole_or_not_at_all(lol, tmp_path, monkeypatch):
    target = tmp_path / "lol.jsonl"
    cli.run("data", ["manifest", "lol", str(lol), f"output={target}"])
    old = target.read_text()
    monkeypatch.setattr("irbridge.data.manifest.sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.run("data", ["manifest", "lol", str(lol), f"output={target}"])
    assert target.read_text() == old


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], ["list", "check NAME DIR"]),
        (["show"], ["list"]),
        (["check", "lol"], ["check NAME DIR"]),
        (["list", "lol"], ["list"]),
        (["check", "rain", "LOL"], ["'rain'", "rain100h"]),
        (["check", "lol", "absent"], ["absent is not a folder"]),
        (["check", "lol", "LOL/our485/high"], ["does not hold LOL v1", "eval15/high/1.png"]),
        (["check", "lol", "LOL", "split=val"], ["split='val'", "train or test"]),
        (["check", "lol", "LOL", "output=x"], ["output= does not go with check"]),
        (["list", "split=test"], ["split="]),
        (["check", "sots_indoor", "LOL", "split=train"], ["test set as a whole"]),
        (
            ["check", "lol", "LOL", "manifest=absent.jsonl"],
            ["absent.jsonl", "prepare_data.py manifest"],
        ),
        (["check", "lol", "LOL", "manifest=notes.txt"], ["notes.txt is not a manifest"]),
        (["check", "lol", "LOL", "manifest=LOL"], ["LOL cannot be read"]),
        (["manifest", "lol", "LOL", "output=LOL"], ["output=LOL"]),
    ],
)
def test_mistakes_end_with_one_sentence_and_status_2(command, lol, tmp_path, words, expected):
    (tmp_path / "notes.txt").write_text('{"name": "1"}\n')
    status, out, err = command("prepare_data", *words)
    assert (
        status == 2
        and not out
        and err.startswith("Error: ")
        and err.count("\n") == 1
        and "Traceback" not in err
    )
    assert all(word in err for word in expected)


def test_a_file_without_its_partner_is_a_mistake_without_a_manifest(command, lol):
    (lol / "our485/low/3.png").unlink()
    status, _, err = command("prepare_data", "check", "lol", lol)
    assert status == 2 and "our485/high/3.png has no partner" in err


ODD = [
    None,
    0,
    1.5,
    True,
    "",
    "x",
    "../x",
    "/dev/zero",
    "\0",
    "a" * 5000,
    "\udce9",
    [],
    {},
    10**400,
]
RECORD = {field: "x" for field in FIELDS} | {"split": "test"}


@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.one_of(
        st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD), max_size=2).map(
            lambda changes: json.dumps(RECORD | changes).encode()
        ),
        st.binary(max_size=12),
        st.sampled_from([b"[" * 100_000, b"9" * 6000, b"\xef\xbb\xbf{}", b"[]", b"null"]),
    ),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)
def test_whatever_a_manifest_holds_there_are_findings_or_one_sentence(lol, tmp_path, line, end):
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(line + end)
    try:
        findings = check("lol", lol, manifest=path)
        assert not all(right for right, _ in findings)
    except UserError as error:
        assert str(error).startswith(f"{path} is not a manifest")


def test_a_pipe_and_a_name_without_end_are_told(lol, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe cannot be read .it is a pipe"):
        check("lol", lol, manifest=tmp_path / "pipe")
    for folder in ("x" * 5000, tmp_path / "pipe"):
        for asked in (check, manifest):
            with pytest.raises(UserError, match="is not a folder, but LOL v1 was looked for in it"):
                asked("lol", folder)
