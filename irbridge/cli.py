"""The command ``irbridge``: what the scripts do, under one name."""

import gc
import os
import re
import sys
from importlib import import_module

from irbridge.errors import UserError

# Name, config and function of each command under Hydra.
HYDRA = {
    "restore": ("restore", "irbridge.commands.restore", "restore_run"),
    "train": ("train", "irbridge.commands.train", "train_run"),
    "evaluate": ("evaluate", "irbridge.commands.evaluate", "evaluate_run"),
    "compare": ("compare", "irbridge.commands.compare", "compare_run"),
    "benchmark": ("benchmark", "irbridge.commands.profile", "benchmark_run"),
    "export": ("export", "irbridge.commands.export", "export_run"),
}
# modules with main(words)
PLAIN = {
    "table": "irbridge.commands.table",
    "data": "irbridge.commands.data",
    "demo": "irbridge.commands.demo",
}
HELP = """irbridge restores photographs with diffusion bridges on a frozen diffusion model.

  irbridge restore task=derain input=photo.jpg      restore photographs: file, folder or "glob"
  irbridge train task=derain                        train, score and draw; again: resume
  irbridge evaluate run=runs/derain-brownian        score a trained run again, with other settings
  irbridge compare run=data/adapters/derain         bridges, step rules and call counts
  irbridge table runs/derain-brownian format=latex  a table of scored runs
  irbridge export run=runs/mine output=DIR          an adapter to hand on, with its model card
  irbridge benchmark benchmark.restore=derain       where the seconds of restoring go
  irbridge data list                                public sets and where they go; check NAME DIR
  irbridge demo                                     restore in the browser

irbridge COMMAND --cfg job prints every key of all but table, data and demo."""
FLAGS = {
    "--compare": "compare=true",
    "--save-path": "save_path=true",
    "--save_path": "save_path=true",
}


def main() -> None:
    """Run the command that ``sys.argv`` names; mistakes end with one sentence and status 2."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(HELP)
        return
    try:
        if name in HYDRA:
            return _under_hydra(name, words)
        if name not in PLAIN:
            raise UserError(
                f"{name!r} is not a command; the commands are {', '.join([*HYDRA, *PLAIN])}."
            )
        import_module(PLAIN[name]).main(words)
    except UserError as error:
        if os.environ.get("IRBRIDGE_DEBUG") == "1":
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


def _under_hydra(name: str, words: list[str]) -> None:
    config, module, function = HYDRA[name]
    plain = {"restore": restore_words, "evaluate": evaluate_words}.get(name, list)
    sys.argv = [f"irbridge {name}", *plain(words)]

    def task(cfg) -> None:
        run = getattr(import_module(module), function)
        # What is imported stays: to look through it again, also at the exit, takes longer than a
        # photograph. Once a process: the cycles that a sweep's job leaves must go before the next.
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()
        run(cfg)

    gc.disable()
    try:
        from irbridge.experiments.config import run_cli  # late: it imports torch

        run_cli(task, config)
    finally:
        gc.enable()


def restore_words(words: list[str]) -> list[str]:
    """The restore command's words for Hydra: flags become keys; ``task``, which Hydra takes for a
    group of configs, becomes ``shipped``; and names of files are quoted, as Hydra would parse
    brackets and commas in them.
    """
    return [
        FLAGS.get(word) or re.sub(r"(?s)^(input|output|run|task|suffix|mask)=(.*)$", _quoted, word)
        for word in words
    ]


def evaluate_words(words: list[str]) -> list[str]:
    """The evaluate command's words for Hydra, which takes no null for a group."""
    return [word for word in words if word not in ("task=null", "method=null")]


def _quoted(match: re.Match) -> str:
    key, value = match[1].replace("task", "shipped"), match[2]
    if value == "null" or (value[:1] in ("'", '"') and value[-1:] == value[:1]):
        return f"{key}={value}"
    # Hydra: a quote is escaped by a backslash, and so are the backslashes before one and at the
    # end.
    escaped = re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'{key}="{escaped}"'
