"""No exception passes a command's boundary, and no console ends its work."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from irbridge import cli
from irbridge.errors import Failure, UserError, is_mistake, told

COMMAND = [sys.executable, "-m", "irbridge"]


def ran(*words, cwd=None, **options):
    """A command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.run(
        [*COMMAND, *words],
        cwd=cwd,
        env=environment,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    "error, said, mistake",
    [
        (UserError("seed=x must be a whole number."), "seed=x must be a whole number.", True),
        (Failure("The loss is nan."), "The loss is nan.", False),
        (KeyError("task"), "irbridge itself is at fault ('task'); please report", False),
        (RecursionError(), "irbridge itself is at fault (recursion error)", False),
        (MemoryError(), "There is not enough memory for this", False),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "enough mem",
            False,
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "There is not enough memory",
            False,
        ),
        (RuntimeError("CUDA out of memory. Tried"), "There is not enough memory", False),
        (OSError(24, "Too many open files"), "ulimit -n", False),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:1"),
            "Another process of this command has ended",
            False,
        ),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "do not fit one another (operator torchvision::nms does not exist); install torch",
            False,
        ),
        (
            OSError("libc10.so: cannot open shared object file: No such file or directory"),
            "do not fit one another (libc10.so: cannot",
            False,
        ),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), "package PIL is missing", False),
        (ModuleNotFoundError("x", name="irbridge.x"), "irbridge itself is at fault (x)", False),
        (PermissionError(13, "Permission denied", "a.png"), "a.png could not be read", False),
    ],
)
def test_every_exception_is_one_sentence(error, said, mistake):
    assert said in told(error) and len(told(error).splitlines()) == 1
    assert is_mistake(error) == mistake


def test_an_unforeseen_exception_has_status_1(monkeypatch, capfd):
    def broken(given):
        raise KeyError("task")

    monkeypatch.setattr(cli, "listing", broken, raising=False)
    monkeypatch.setattr("irbridge.commands.data.data_run", broken)
    monkeypatch.setattr(sys, "argv", ["irbridge", "data", "list"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    err = capfd.readouterr().err
    assert err.startswith("Error: irbridge itself is at fault") and "Traceback" not in err
    monkeypatch.setenv("IRBRIDGE_DEBUG", "1")
    with pytest.raises(KeyError):
        cli.main()


@pytest.mark.parametrize("words", [("data", "list"), ("train", "--help"), ("--help",)])
def test_a_reader_that_leaves_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = ran(*words, stdout=writing)
    os.close(writing)
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_device_is_told():
    with open("/dev/full", "w") as full:
        done = ran("data", "list", stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "Error: The output could not be written (No space left on device).\n"
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_console_without_the_letter(environment, tmp_path):
    done = ran("table", "фото→", cwd=tmp_path, stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 2 and done.stderr.startswith(b"Error: ")
    assert b"Traceback" not in done.stderr


def test_a_folder_that_is_gone(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, runpy; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r});"
    code += "import sys; sys.argv = ['irbridge', 'table', 'x'];"
    code += "from irbridge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "is gone" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words, status",
    [
        (("restore", "task=derain", "input=x"), 1),
        (("train", "task=derain"), 130),
        (("table", "x"), 130),
    ],
)
def test_ctrl_c_in_the_first_seconds(words, status, tmp_path):
    """Whenever it comes once the command has begun, also while it imports, it says one line."""
    for imports in (2, 40, 400):
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", *COMMAND[1:], *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun, lines = False, []
        for line in process.stderr:
            lines.append(line)
            begun = begun or line.split("|")[-1].strip() == "irbridge.cli"
            imports -= begun
            if imports < 0:
                break
        process.send_signal(signal.SIGINT)
        lines += process.communicate(timeout=100)[1].splitlines()
        err = [line for line in lines if not line.startswith("import time:")]
        assert not any("Traceback" in line for line in err), "\n".join(err)
        assert process.returncode in (status, 2), err  # 2: it had ended by itself


def test_ctrl_c_within_an_exec_has_the_status_of_any_other(tmp_path):
    """Python notes it, and ``python -m`` would end by the signal though it was caught."""
    lines = (
        "import sys",
        "from irbridge import cli",
        "def cut(*words): exec('raise KeyboardInterrupt')",
        "cli._command, sys.argv = cut, ['irbridge', 'train']",
        "cli.main()",
    )
    (tmp_path / "cut.py").write_text("\n".join(lines))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "cut"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.strip()) == (130, cli.INTERRUPTED)
