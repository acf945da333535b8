"""Every promise of docs/safety.md names a test that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`")


def test_every_promise_names_a_test_that_is_there():
    file, found = None, 0
    for row in (ROOT / "docs" / "safety.md").read_text("utf-8").splitlines():
        if not row.startswith("| ") or row.startswith(("| Promise", "| ---")):
            continue
        named = [match for match in NAMED.findall(row.rsplit("|", 2)[1]) if any(match)]
        assert named, f"no test shows: {row}"
        for path, name in named:
            file = path or file
            text = (ROOT / file).read_text("utf-8")
            assert not name or f"def {name}(" in text, f"{file} has no {name}"
            found += 1
    assert found > 30
