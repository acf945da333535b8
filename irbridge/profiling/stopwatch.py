"""A restore command with a clock in it, for ``racing``: ``python stopwatch.py STARTED FILE
words...`` runs the irbridge that Python finds, which may be an older one, and writes seconds since
STARTED and of each part to FILE. Alone in its process and without imports of its own but the
standard library's, so that it changes neither.
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


def main(started: float, file: str, words: list[str]) -> None:
    """Run ``irbridge restore`` with the words; ``started``: ``time.time()`` when the process
    was.
    """
    seconds, first, inside = {}, [], threading.local()

    def clocked(owner, name: str, part: str) -> None:
        function = getattr(owner, name)

        def run(*args, **kwargs):
            if part in ("adapter", "prior") and not first:
                first.append(time.time() - started)
            began, outer, inside.nested = time.perf_counter(), getattr(inside, "nested", 0.0), 0.0
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                seconds[part] = seconds.get(part, 0.0) + spent - inside.nested
                inside.nested = outer + spent

        setattr(owner, name, run)

    from irbridge import cli

    imported = cli.import_module

    def importing(name: str):  # not before the command does: how long that takes is measured
        command = imported(name)
        places = {
            part: [where for where in known if there(where)] for part, known in PLACES.items()
        }
        for kind in places["adapter"]:
            # not all versions have all
            for method in {"condition", "residuals", "estimate"} & set(dir(there(kind))):
                clocked(there(kind), method, "adapter")
        for kind in places["prior"]:
            clocked(there(kind), "predict", "prior")
        for part, function in (("decode", "read_photo"), ("encode", "write_photo")):
            for module in places[part][:1]:
                clocked(there(module), function, part)
        return command

    cli.import_module = importing
    sys.argv = ["irbridge", "restore", *words]
    try:
        cli.main()
    finally:
        with open(file, "w") as handle:
            json.dump({"start": first[0] if first else None, **seconds}, handle)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3:])
