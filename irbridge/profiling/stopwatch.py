"""A restore command with a clock in it, for :mod:`irbridge.profiling.race`.

``python stopwatch.py STARTED FILE words...`` runs the irbridge that Python finds, which may be an
older one, and writes the seconds since STARTED and of each part to FILE. It is alone in its process
and imports nothing but the standard library, so that it changes neither.
"""

import json
import sys
import threading
import time
from importlib import import_module

# Where each part is, in the present version and in earlier ones; a class or a module.
PLACES = {
    "adapter": [
        "irbridge.adapters.static:StaticAdapter",
        "irbridge.adapters.control:ControlAdapter",
        "irbridge.adapters:StaticAdapter",
        "irbridge.adapters:ControlAdapter",
    ],
    "prior": ["irbridge.backbones.pixel:PixelBackbone", "irbridge.backbones:PixelBackbone"],
    "decode": ["irbridge.restoration.restore", "irbridge.restoring"],
    "encode": ["irbridge.restoration.restore", "irbridge.restoring"],
}


def there(place: str):
    """The class or module of that name, or None where this version has no such thing."""
    module, _, name = place.partition(":")
    try:
        found = import_module(module)
    except ImportError:
        return None
    return getattr(found, name, None) if name else found


class Stopwatch:
    """Seconds of parts, each without the parts that run inside it.

    Args:
        started: ``time.time()`` when the process was started.
    """

    def __init__(self, started: float):
        self.started = started
        self.seconds: dict[str, float] = {}
        self.first_call: float | None = None
        """Seconds from the start to the first call of a network."""
        self.inside = threading.local()

    def watch(self, owner, name: str, part: str) -> None:
        """Count the calls of a class's or module's function on a part."""
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            if part in ("adapter", "prior") and self.first_call is None:
                self.first_call = time.time() - self.started
            outer = getattr(self.inside, "nested", 0.0)
            self.inside.nested = 0.0
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                own = spent - self.inside.nested
                self.seconds[part] = self.seconds.get(part, 0.0) + own
                self.inside.nested = outer + spent

        setattr(owner, name, watched)

    def watch_all(self) -> None:
        """Count what this version has of the parts."""
        places = {part: [there(name) for name in known] for part, known in PLACES.items()}
        found = {part: [place for place in known if place] for part, known in places.items()}
        for adapter in found["adapter"]:
            # not all versions have all
            for method in {"condition", "residuals", "estimate"} & set(dir(adapter)):
                self.watch(adapter, method, "adapter")
        for backbone in found["prior"]:
            self.watch(backbone, "predict", "prior")
        for module in found["decode"][:1]:
            self.watch(module, "read_photo", "decode")
        for module in found["encode"][:1]:
            self.watch(module, "write_photo", "encode")


def main(started: float, file: str, words: list[str]) -> None:
    """Run ``irbridge restore`` and write its seconds to a file.

    Args:
        started: ``time.time()`` when the process was started.
        file: JSON, ``start`` (seconds to the first network call, or null) and each part's seconds.
        words: of the command line.
    """
    stopwatch = Stopwatch(started)
    cli = import_module("irbridge.cli")
    imported = cli.import_module

    def importing(name: str):
        # not before the command imports it itself: how long that takes is measured
        command = imported(name)
        stopwatch.watch_all()
        return command

    cli.import_module = importing
    sys.argv = ["irbridge", "restore", *words]
    try:
        cli.main()
    finally:
        with open(file, "w", encoding="utf-8") as handle:
            json.dump({"start": stopwatch.first_call, **stopwatch.seconds}, handle)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3:])
