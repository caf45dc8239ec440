"""Files whole or absent whatever fails, and one process a folder."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from failing import Failing

from charrnn import disk
from charrnn.disk import claimed, write_whole
from charrnn.errors import LockedError, StorageError, UsageError

OLD, NEW = b"old" * 700_000, b"new" * 900_000


def ways():
    """Each call that writing makes, and each way for it to fail."""
    made = 13  # checked below
    return [(at, how) for at in range(1, made + 1) for how in (errno.EIO, errno.ENOSPC, "kill before", "kill after")]


@pytest.mark.parametrize("at, how", ways())
def test_whatever_call_fails_the_old_content_or_the_new_is_there(at, how, tmp_path, monkeypatch):
    path, previous = tmp_path / "file", tmp_path / "file.previous"
    write_whole(path, OLD)
    failing = Failing(at, how)
    child = os.fork()
    if not child:
        monkeypatch.setattr(disk, "os", failing)
        try:
            write_whole(path, NEW, previous)
            os._exit(0)
        except StorageError as error:
            os._exit(5 if "\n" not in str(error) and str(path) in str(error) else 1)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGKILL if isinstance(how, str) else os.waitstatus_to_exitcode(status) == 5
    assert path.exists() or previous.exists()
    assert not path.exists() or path.read_bytes() in (OLD, NEW)
    assert not previous.exists() or previous.read_bytes() == OLD
    with claimed(tmp_path):
        assert {name.name for name in tmp_path.iterdir()} <= {"file", "file.previous", disk.LOCK}


def test_every_call_of_a_write_is_among_them(tmp_path, monkeypatch):
    counting = Failing(0, 0)
    write_whole(tmp_path / "file", OLD)
    monkeypatch.setattr(disk, "os", counting)
    write_whole(tmp_path / "file", NEW, tmp_path / "file.previous")
    assert len(counting.made) == max(at for at, _ in ways()), counting.made


def test_a_file_that_cannot_be_read_again_does_not_take_its_place(tmp_path, monkeypatch):
    write_whole(tmp_path / "file", OLD)
    monkeypatch.setattr(disk, "holds", lambda fd, data: False)
    with pytest.raises(StorageError, match="read again"):
        write_whole(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == OLD and len(list(tmp_path.iterdir())) == 1


def test_what_holds_means(tmp_path):
    path = tmp_path / "file"
    for data, same in ((NEW, True), (NEW[:-1], False), (NEW + b"x", False), (NEW[:-1] + b"x", False), (b"", False)):
        path.write_bytes(data)
        with open(path, "rb") as file:
            assert disk.holds(file.fileno(), NEW) is same


def test_the_users_umask_decides_and_links_are_not_followed(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / f".file{disk.ASIDE}").symlink_to("victim")
    with pytest.raises(StorageError):
        write_whole(tmp_path / "file", b"y")
    (tmp_path / f".file{disk.ASIDE}").symlink_to("victim")
    with claimed(tmp_path):
        write_whole(tmp_path / "file", b"y")
    assert (tmp_path / "victim").read_bytes() == b"untouched" and (tmp_path / "file").read_bytes() == b"y"


def test_one_process_a_folder(tmp_path):
    run = tmp_path / "runs" / "run"
    with claimed(run):
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), claimed(run):
            pass
        other = subprocess.run([sys.executable, "-m", "charrnn", "train", __file__, "--out", str(run)], capture_output=True, text=True)
        assert other.returncode == 4 and str(os.getpid()) in other.stderr and other.stderr.count("\n") == 1
        resuming = subprocess.run([sys.executable, "-m", "charrnn", "train", __file__, "--out", str(run), "--resume"], capture_output=True)
        assert resuming.returncode == 4
    assert list(tmp_path.iterdir()) == []  # nothing was written: nothing is left


def test_a_lock_file_without_a_process_is_no_obstacle(tmp_path):
    run = tmp_path / "run"
    child = os.fork()
    if not child:
        with claimed(run):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (run / disk.LOCK).read_text() == str(child)
    with claimed(run):
        assert (run / disk.LOCK).read_text() == str(os.getpid())
        (run / "kept").touch()
    assert [path.name for path in run.iterdir()] == ["kept"]


def test_who_waited_for_a_lock_that_was_removed_takes_the_new_one(tmp_path, monkeypatch):
    """Between opening the file and locking it, its owner leaves: a lock on a file without a name would hold nobody off."""
    import fcntl

    flock, turns = fcntl.flock, []

    def leaves_first(fd, how):
        if not turns:
            (tmp_path / disk.LOCK).unlink()
        turns.append(fd)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", leaves_first)
    with claimed(tmp_path), pytest.raises(LockedError), claimed(tmp_path):
        pass
    assert len(turns) == 3


def test_a_place_that_is_no_folder_or_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError), claimed(tmp_path / "file"):
        pass
    for place in ("/proc/nowhere", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match=str(place)), claimed(Path(place)):
            pass
