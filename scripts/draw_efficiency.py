"""Table and plot of ``experiment=efficiency``: ``python scripts/draw_efficiency.py runs/efficiency
[plot.png]``.
"""

import sys
from pathlib import Path

from irbridge.errors import UserError
from irbridge.reports.efficiency import budget_tables, budgets
from irbridge.reports.plots import budget_plot
from irbridge.reports.table import render

if __name__ == "__main__":
    try:
        if not 2 <= len(sys.argv) <= 3:
            raise UserError(
                "Give the folder of the runs and, if wanted, the PNG: draw_efficiency.py FOLDER"
                " [plot.png]."
            )
        folder, plot = (
            sys.argv[1],
            Path(sys.argv[2] if len(sys.argv) == 3 else Path(sys.argv[1]) / "efficiency.png"),
        )
        rows = budgets(folder)
        print(render(budget_tables(rows), "markdown"))
        budget_plot(rows, plot)
        print(f"\nWrote: {plot}")
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
