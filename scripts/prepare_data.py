"""Public sets, what goes where and whether it is right: ``python scripts/prepare_data.py list``,
``check NAME DIR [split=train|test] [manifest=FILE]`` or ``manifest NAME DIR [output=FILE]``;
every word is in irbridge/preparing.py.
"""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "data")
    main()
