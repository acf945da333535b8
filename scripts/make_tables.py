"""Tables, pictures and plots from scored runs: ``python scripts/make_tables.py runs/derain
format=latex output=t.tex``; every option is in irbridge/tables_command.py.
"""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "table")
    main()
