"""The command ``irbridge``: which command a word names, and how its mistakes are told."""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

from irbridge import console
from irbridge.assets import __version__
from irbridge.errors import INTERRUPTED, STOPPED, UserError, is_mistake, told, unknown


class Command(NamedTuple):
    """A command: its module, the function that runs it, and where its options come from.

    Attributes:
        module: that holds the function.
        function: called with the options.
        options: of a command of plain flags, the class in ``commands.options``.
        config: of a command under Hydra, the file of ``configs``.
    """

    module: str
    function: str
    options: str = ""
    config: str = ""


COMMANDS = {
    "restore": Command("irbridge.commands.restore", "restore_run", "RestoreOptions"),
    "train": Command("irbridge.commands.train", "train_run", config="train"),
    "evaluate": Command("irbridge.commands.evaluate", "evaluate_run", config="evaluate"),
    "compare": Command("irbridge.commands.compare", "compare_run", config="compare"),
    "inverse": Command("irbridge.commands.inverse", "inverse_run", "InverseOptions"),
    "table": Command("irbridge.commands.table", "table_run", "TableOptions"),
    "export": Command("irbridge.commands.export", "export_run", "ExportOptions"),
    "convert_hidiff": Command(
        "irbridge.commands.convert_hidiff", "convert_run", "ConvertHIDiffOptions"
    ),
    "pretrain": Command("irbridge.commands.pretrain", "pretrain_run", config="pretrain"),
    "prior": Command("irbridge.commands.prior", "prior_run", config="prior"),
    "profile": Command("irbridge.commands.profile", "profile_run", config="benchmark"),
    "data": Command("irbridge.commands.data", "data_run", "DataOptions"),
    "bridges": Command("irbridge.commands.bridges", "bridges_run", "BridgesOptions"),
    "demo": Command("irbridge.commands.demo", "demo_run", "DemoOptions"),
    "reproduce": Command("irbridge.commands.reproduce", "reproduce_run", "ReproduceOptions"),
}
HELP = """irbridge restores photographs with diffusion bridges on a frozen diffusion model.

  irbridge restore --task derain photo.jpg          restore photographs: file, folder or "glob"
  irbridge train task=derain                        train, score and draw; again: resume
  irbridge evaluate run=runs/derain-brownian        score a trained run again, with other settings
  irbridge compare run=data/adapters/derain         bridges, step rules and call counts
  irbridge inverse                                  zero-shot solvers on known problems
  irbridge table runs/derain-brownian               a table, page or plot of scored runs
  irbridge export --run runs/mine --output DIR      an adapter to hand on, with its model card
  irbridge convert_hidiff DIR --output DIR          HI-Diff's released weights as a model here
  irbridge pretrain                                 train an unconditional prior
  irbridge prior                                    how well a prior denoises
  irbridge profile task=derain                      where time and memory go
  irbridge data list                                public sets and where they go; check NAME DIR
  irbridge bridges                                  the law of every bridge, drawn
  irbridge demo                                     restore in the browser
  irbridge reproduce list                           every table of the documentation, by one word

irbridge COMMAND --help explains a command. Every option may be said as key=value, such as
irbridge restore task=derain input=photo.jpg steps=3."""
# commands of earlier versions
RENAMED = {"benchmark": "profile"}


def main() -> None:
    """Run the command that ``sys.argv`` names.

    A mistake ends it with one sentence and status 2, a fault with status 1, Ctrl-C with 130 (of
    restore 1, as of any photographs that are left).
    """
    status = _status(sys.argv[1:] or ["--help"])
    if error := console.lost():
        print(f"Error: The output could not be written ({error.strerror}).", file=sys.stderr)
        status = status or 1
    # where Ctrl-C cut an exec() short, as imports make classes by, Python would end by a signal in
    # place of our status, until another one was run
    exec("")
    # all is said and done; Ctrl-C within Python's own end would show a traceback
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    if status:
        sys.exit(status)


def _status(words: list[str]) -> int:
    """Run a command and give its exit status; this is the boundary that no exception passes."""
    try:
        console.prepare()
        _command(*words)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return _stopped(words)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return 1 if isinstance(end.code, str) else end.code or 0
    except Exception as error:
        if os.environ.get("IRBRIDGE_DEBUG") == "1":
            raise
        print(f"Error: {told(error)}", file=sys.stderr)
        return 2 if is_mistake(error) else 1
    return 0


def _stopped(words: list[str]) -> int:
    """The exit status of a command that was interrupted."""
    return 1 if words[0] == "restore" else STOPPED


def _command(name: str, *words: str) -> None:
    """Run a command, or print its help page."""
    if name in ("--help", "-h", "help"):
        print(HELP)
        return
    if name in ("--version", "-V"):
        print(f"irbridge {__version__}")
        return
    if name not in COMMANDS:
        raise _unknown(name)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            "The folder that this command runs in is gone; go to one that is there, such as cd ~."
        ) from None
    command = COMMANDS[name]
    if asks_for_help(list(words)):
        print(help_page(name))
    elif command.config:
        _under_hydra(command, name, list(words))
    else:
        _plain(name, list(words))


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Within the block, where modules are imported, Ctrl-C ends the process at once.

    Nothing is to be saved yet, and an import that is cut in the middle raises anything.
    """

    def end(*_) -> None:
        os.write(2, f"{INTERRUPTED}\n".encode())
        os._exit(_stopped([name]))

    try:
        before = signal.signal(signal.SIGINT, end)
    except ValueError:  # in a thread, which has no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run(name: str, words: list[str]) -> None:
    """Run a command of plain flags, as ``run("table", ["runs/mine", "format=csv"])``.

    Raises:
        UserError: the words, or what they name, are wrong.
    """
    command = COMMANDS[name]
    with _loading(name):
        from irbridge.commands import flags, options  # late: they import click

        given = flags.parse(name, getattr(options, command.options), words)
        gc.disable()
        try:
            function = getattr(import_module(command.module), command.function)
            _keep_imports()
        finally:
            gc.enable()
    function(given)


def asks_for_help(words: list[str]) -> bool:
    """Whether the words of a command ask for its help page."""
    end = words.index("--") if "--" in words else len(words)
    return any(word in ("--help", "-h") for word in words[:end])


def help_page(name: str) -> str:
    """The help page of a command."""
    if COMMANDS[name].config:
        from irbridge.commands.help_pages import PAGES

        return PAGES[name].text(name)
    from irbridge.commands import flags, options

    return flags.page(name, getattr(options, COMMANDS[name].options))


def _unknown(name: str) -> UserError:
    """The error for a word that is no command."""
    remedy = f"the commands are {', '.join(COMMANDS)}"
    return unknown(f"{name!r} is not a command", RENAMED.get(name, name), COMMANDS, remedy)


def _plain(name: str, words: list[str]) -> None:
    """Run a command of plain flags."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(name, words)


def _under_hydra(command: Command, name: str, words: list[str]) -> None:
    """Run a command whose words Hydra composes into a config."""
    if name == "evaluate":
        words = evaluate_words(words)
    sys.argv = [f"irbridge {name}", *words]

    def task(config) -> None:
        with _loading(name):
            run = getattr(import_module(command.module), command.function)
            _keep_imports()
        gc.enable()
        run(config)

    gc.disable()
    try:
        with _loading(name):
            from irbridge.experiments.config import run_cli  # late: it imports torch

        run_cli(task, command.config)
    finally:
        gc.enable()


def _keep_imports() -> None:
    """Tell the garbage collector that what is imported stays.

    To look through it again, also at the exit, takes longer than a photograph. Once a process: the
    cycles that a sweep's job leaves must go before the next.
    """
    if not gc.get_freeze_count():
        gc.freeze()


def evaluate_words(words: list[str]) -> list[str]:
    """The evaluate command's words for Hydra, which takes no null for a group."""
    return [word for word in words if word != "task=null"]
