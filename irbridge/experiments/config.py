"""The door: from what the user wrote to checked plain data.

Only here Hydra composes a config, and every mistake ends as one clear sentence.
"""

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from irbridge.assets import CONFIGS
from irbridge.errors import UserError
from irbridge.experiments.instantiate import innermost
from irbridge.experiments.names import import_named, import_own
from irbridge.experiments.schema import checked
from irbridge.experiments.suggestions import check_renamed, suggested
from irbridge.experiments.sweep import check_alone
from irbridge.files import full_disk
from irbridge.training.signals import stops

# Hydra's, each followed by a word of its own
FLAGS_WITH_VALUE = {
    "--cfg",
    "-c",
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--experimental-rerun",
    "--package",
    "-p",
}


def run_cli(task, config_name: str) -> None:
    """Run a command's task under Hydra.

    Mistakes end with one sentence and status 2, faults with status 1. The traceback is shown with
    IRBRIDGE_DEBUG=1. A sweep goes on after a job that fails, and ends at a stop signal.

    Args:
        task: called with the config of each job as checked plain data: dicts, lists, words,
            numbers.
        config_name: the file in configs/ that lists the command's keys.
    """
    # so that Hydra raises here instead of printing its own traceback
    os.environ["HYDRA_FULL_ERROR"] = "1"
    raised: list[Exception] = []
    # a file name that the terminal cannot show must not stop a command
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    stops.clear()
    words = flags_first(sys.argv[1:])
    sys.argv[1:] = words
    process, debug = os.getpid(), os.environ.get("IRBRIDGE_DEBUG") == "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)
    def main(cfg: DictConfig):
        try:
            check_renamed(config_name, given_words())  # a sweep has words of its own
            config = given(cfg)
            # first, as the check builds the parts, the user's own too
            import_own(own_folders())
            import_named(config)
            checked(config_name, config)
            check_alone(config_name, tuple(words), sweep_job)
            task(config)
        except Exception as error:  # kept from Hydra, which would print a line of its own
            raised.append(error if debug else _told(error))
            # in a launcher's worker: Hydra takes it to the command's own process
            if os.getpid() != process:
                raise raised[-1] from None
        if stops and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise KeyboardInterrupt

    interrupted = False
    try:
        check_renamed(config_name, sys.argv[1:])
        main()
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        fault = isinstance(error, RuntimeError)  # of a worker; else Hydra could not compose
        told = one_sentence(error) if fault else _meant(one_sentence(error), config_name)
        raised.append(error if debug else (RuntimeError if fault else UserError)(told))
    if raised and debug:
        raise raised[0]
    for error in raised:
        print(f"Error: {error}", file=sys.stderr)
    if interrupted:
        print("Interrupted; what was finished is saved, and the same command goes on.")
    if raised or interrupted:
        sys.exit(min((2 if isinstance(error, UserError) else 1 for error in raised), default=0))


def flags_first(words: Sequence[str]) -> list[str]:
    """The words of a command with its flags before the others, where alone Hydra takes them all."""
    flags, others = [], []
    for index, word in enumerate(words):
        of_flag = index and words[index - 1] in FLAGS_WITH_VALUE
        (flags if word.startswith("-") or of_flag else others).append(word)
    return flags + others


def _meant(sentence: str, config_name: str) -> str:
    """A sentence on a word that Hydra does not know, with what was meant."""
    try:
        return suggested(sentence, composed(config_name, resolve=False))
    except Exception:  # where the config cannot be had, the sentence stands as it is
        return suggested(sentence, None)


def _told(error: Exception) -> Exception:
    """The error of a job in one sentence, which in a sweep names the job.

    A mistake is a UserError, anything else a RuntimeError.
    """
    config, text = HydraConfig.get(), one_sentence(error)
    if config.mode == RunMode.MULTIRUN:
        text = f"Job {config.job.num} ({' '.join(config.overrides.task)}): {text}"
    return (UserError if isinstance(error, (UserError, OmegaConfBaseException)) else RuntimeError)(
        text
    )


def one_sentence(error: Exception) -> str:
    """An exception as one line.

    That is its own text, and for Hydra's errors also the innermost cause and the choices.
    """
    cause = innermost(error)
    error = cause if isinstance(cause, UserError) and not isinstance(error, UserError) else error
    if isinstance(error, OSError) and error.filename:
        remedy = "make room there" if full_disk(error) else "check the path and its permissions"
        return (
            f"{error.filename} could not be read or written ({error.strerror}); {remedy}, and the"
            " same command goes on from what was finished."
        )
    if isinstance(error, InterpolationKeyError) and (key := re.search(r"'(.+?)'", str(error))):
        return f"{key[1]} has no value, and another key takes its own from it; give {key[1]}=..."
    lines = [line.strip() for line in str(error).replace("\t", " ").splitlines() if line.strip()]
    if lines and lines[0].startswith("Caught "):  # a worker process hands its traceback on as text
        lines = [lines[-1].split(": ", 1)[-1]]
    kept = [
        line
        for line in lines
        if not line.startswith(("full_key:", "object_type=", "set env", "Set the env"))
    ]
    text = (" ".join(kept) or type(error).__name__).split(" Config search path:")[0]
    hint = "To append to your config use"
    if hint in text:
        text = text.split(hint)[0].strip() + " Check the spelling, or see the keys with --cfg job."
    plainly = isinstance(error, (UserError, RuntimeError)) or type(error).__module__.startswith(
        "hydra"
    )
    return text if plainly else f"{type(error).__name__}: {text}"


def given(cfg: DictConfig) -> dict:
    """The composed config as plain data; UserError where a key that must be given is not."""
    for key in _missing(cfg):
        raise UserError(f"{key} has no value; give {key}=... on the command line.")
    return plain(cfg)


def _missing(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        if OmegaConf.is_missing(cfg, key):
            yield f"{prefix}{key}"
        elif isinstance(cfg[key], DictConfig):
            yield from _missing(cfg[key], f"{prefix}{key}.")


def given_words() -> list[str]:
    """The words of the command line that the running job was composed of; none outside of one."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def composed(
    config_name: str, *overrides: str, folder: Path = CONFIGS, resolve: bool = True
) -> dict:
    """The plain config that a command would get from these overrides, also within a running one.

    Args:
        config_name: the file in configs/ that lists the command's keys.
        overrides: words as on the command line.
        folder: the configs of another checkout.
        resolve: False leaves interpolations as they are written.
    """
    return OmegaConf.to_container(_compose(config_name, overrides, folder), resolve=resolve)


def _compose(config_name: str, overrides: Sequence[str], folder: Path) -> DictConfig:
    # A user's own folders are another checkout's business as little as its configs are ours.
    places = [f"file://{place}" for place in own_folders() if folder == CONFIGS]
    own = [f"hydra.searchpath=[{','.join(places)}]"] if places else []
    state, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            return hydra.compose(config_name, [*overrides, *own])
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = state


def sweep_job(config_name: str, words: tuple[str, ...]) -> DictConfig:
    """The config of another job of the running sweep, with what it takes from Hydra's own."""
    own = HydraConfig.instance().cfg
    places = [f"file://{place}" for place in own_folders()]
    search = [f"hydra.searchpath=[{','.join(places)}]"] if places else []
    state, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose(config_name, [*words, *search], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return OmegaConf.create({key: config.get(key) for key in ("run", "output")})
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = state
        HydraConfig.instance().cfg = own


def own_folders() -> list[Path]:
    """The user's own folders of configs, which ``--config-dir`` adds to a running command."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.provider == "command-line"]


def plain(cfg) -> dict:
    """A config, or a value of one, as resolved plain data."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
