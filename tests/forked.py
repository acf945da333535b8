"""Commands in processes of their own that need not import torch anew, which takes seconds each.

``python tests/forked.py`` imports what commands import, computes nothing, and then forks a process
for every command that it is told to run. In all else that is one as a shell starts it: its folder,
environment, streams, session, process group, random numbers and status are its own.
"""

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = "train", "evaluate", "restore", "compare", "export", "table"
# but for irbridge.commands.pretrain, as it imports diffusers whole, which other commands do without
IMPORTED = "irbridge.cli", "scipy.signal", "torch._dynamo"
IMPORTED += tuple(f"irbridge.commands.{name}" for name in COMMANDS)


def serve() -> list[str]:
    """Fork for every line that comes in; returns in the children alone, with what each is to run.

    A line goes out with the child's number, and a second with its status when it has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who started this
    for name in IMPORTED:
        importlib.import_module(name)
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            return become(**json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


def become(words: list[str], cwd: str, env: dict[str, str], said: list[str]) -> list[str]:
    """Take a command's place: its session, folder, environment, streams and random numbers."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].seed()
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for stream, path in enumerate([os.devnull, *said]):
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, stream)
        os.close(opened)
    own = [cwd] if words[0] == "-m" else [str(Path(cwd, words[0]).resolve().parent)]
    own += [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    # the first is the folder of this file, the process that forks
    sys.path[:] = own + sys.path[1:]
    return words


@cache
def _server() -> subprocess.Popen:
    """The process that forks, started once and ended with this one."""
    env = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | os.environ
    server = subprocess.Popen(
        [sys.executable, __file__],
        env=env | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(Forked.end, server)
    return server


class Forked:
    """``python *words`` as ``subprocess.Popen`` starts it; another one ends that of before."""

    _last = None

    @classmethod
    def end(cls, server: subprocess.Popen) -> None:
        """End the last command, where it runs on, and the process that forks."""
        if cls._last is not None:
            cls._last.send_signal(signal.SIGKILL, group=True)
        server.stdin.close()

    def __init__(self, *words, cwd=".", env=None):
        if Forked._last is not None:
            Forked._last.communicate(0)
        Forked._last = self
        self._folder = tempfile.TemporaryDirectory(prefix="irbridge-forked-")
        self._said = [Path(self._folder.name, name) for name in ("out", "err")]
        for path in self._said:
            path.touch()
        told = {
            "words": list(map(str, words)),
            "cwd": os.path.abspath(cwd),
            "env": dict(os.environ if env is None else env),
            "said": list(map(str, self._said)),
        }
        _server().stdin.write(json.dumps(told).encode() + b"\n")
        _server().stdin.flush()
        self.returncode = None
        self.pid = int(self._answer())

    def _answer(self) -> bytes:
        """A line of the server's, read byte by byte, so that none waits in a buffer unseen."""
        line = b""
        while not line.endswith(b"\n"):
            got = os.read(_server().stdout.fileno(), 1)
            assert got, "the process that forks commands has ended"
            line += got
        return line

    def poll(self, seconds: float = 0) -> int | None:
        """Its status, where it has one within some seconds; minus a signal that ended it."""
        if self.returncode is None and select.select([_server().stdout], [], [], seconds)[0]:
            self.returncode = int(self._answer())
        return self.returncode

    def send_signal(self, number: int, group: bool = False) -> None:
        """Send it a signal, or its whole group, unless it has ended."""
        if self.poll() is None:
            (os.killpg if group else os.kill)(self.pid, number)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed and what it said of errors, when it ends; it is killed after so long."""
        if self.poll(timeout) is None:
            self.send_signal(signal.SIGKILL, group=True)
            self.poll(timeout)
        return tuple(path.read_text(encoding="utf-8", errors="replace") for path in self._said)


if __name__ == "__main__":
    sys.argv = serve()
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
