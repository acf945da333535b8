"""Nothing is replaced that irbridge did not write, whatever a user names."""

import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irbridge import own_files
from irbridge.errors import UserError
from irbridge.own_files import check_writable, write_result, write_text_result


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))


def test_a_file_of_ones_own_is_never_replaced(tmp_path):
    path = tmp_path / "table.md"
    path.write_text("my thesis")
    with pytest.raises(
        UserError, match=r"output=.*table.md is there and is not what irbridge wrote"
    ):
        write_text_result(path, "a table")
    assert path.read_text() == "my thesis"


def test_what_irbridge_wrote_is_replaced_until_it_is_changed(tmp_path):
    path = tmp_path / "new/table.md"
    for text in ("one", "two", "one"):
        write_text_result(path, text)
        assert path.read_text() == text and os.listdir(path.parent) == ["table.md"]
    path.write_text("one, with a remark")
    with pytest.raises(UserError, match="plot=.*move it"):
        write_text_result(path, "three", "plot")
    assert path.read_text() == "one, with a remark"


def test_a_kill_before_the_rename_leaves_the_file_known(tmp_path, monkeypatch):
    path = tmp_path / "table.md"
    write_text_result(path, "one")
    monkeypatch.setattr(
        own_files, "write_atomically", lambda path, write: write(tmp_path / "aside")
    )
    write_text_result(path, "two")  # noted, and never renamed
    monkeypatch.undo()
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))
    write_text_result(path, "three")
    assert path.read_text() == "three"


def test_a_link_stays_one_and_what_it_leads_to_is_looked_at(tmp_path):
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "link").symlink_to("notes")
    with pytest.raises(UserError, match="link is there"):
        write_text_result(tmp_path / "link", "a table")
    (tmp_path / "notes").unlink()
    write_text_result(tmp_path / "link", "a table")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "notes").read_text() == "a table"


def test_folders_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, said in ((tmp_path, "folder"), (tmp_path / "pipe", "pipe"), ("/dev/null", "device")):
        with pytest.raises(UserError, match=said):
            check_writable(place)
    assert not os.path.isfile("/dev/null")


def test_without_a_cache_a_new_file_is_written_and_an_old_one_refused(tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "blocked/cache"))
    write_text_result(tmp_path / "a.md", "one")
    with pytest.raises(UserError, match="is there"):
        write_text_result(tmp_path / "a.md", "two")
    assert (tmp_path / "a.md").read_text() == "one"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_want_of_room_is_told_and_leaves_the_old_file(tmp_path, number):
    write_text_result(tmp_path / "a.md", "one")

    def full(path):
        path.write_text("ha")
        raise OSError(number, os.strerror(number))

    with pytest.raises(UserError, match=r"a.md.*cannot be written.*make room"):
        write_result(tmp_path / "a.md", full)
    assert (tmp_path / "a.md").read_text() == "one" and os.listdir(tmp_path).count("a.md") == 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", "c"])), max_size=8))
def test_any_order_of_writers(tmp_path, order):
    """After a user's write the file is the user's, until the user removes it."""
    path, mine = tmp_path / "shared.md", None
    path.unlink(missing_ok=True)
    for by_user, text in order:
        if by_user:
            mine = f"of mine: {text}"
            path.write_text(mine)
        elif mine is None:
            write_text_result(path, text)
        else:
            with pytest.raises(UserError):
                write_text_result(path, text)
            assert path.read_text() == mine
