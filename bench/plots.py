"""The plots, as SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot

from bench.rows import Row
from bench.section import Plot, Section

__all__ = ["draw"]

SIZE: Final = (9.0, 5.0)
STYLES: Final = {"uvloop": "--"}

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "lucia"  # the same rows give the same file


def draw(sections: Sequence[Section], rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw what was measured, and say where."""
    drawn: list[Path] = []
    for section in sections:
        for plot in section.plots:
            shown = [row for row in rows if row.section == section.name and plot.setting.items() <= row.setting.items()]
            if shown:
                drawn.append(folder / f"{plot.name}.svg")
                _draw(plot, section.columns, shown, drawn[-1])
    return drawn


def _draw(plot: Plot, column: str, rows: Sequence[Row], path: Path) -> None:
    """Medians, and the range of all rounds."""
    axes: Any
    figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
    colours = {subject: f"C{number}" for number, subject in enumerate(dict.fromkeys(row.subject for row in rows))}
    for subject, loop in dict.fromkeys((row.subject, row.setting.get("loop")) for row in rows):
        line = sorted(
            (row for row in rows if (row.subject, row.setting.get("loop")) == (subject, loop)), key=lambda row: row.setting[column]
        )
        x, y = [row.setting[column] for row in line], [row.median for row in line]
        spread = [[row.median - min(row.values) for row in line], [max(row.values) - row.median for row in line]]
        style, label = STYLES.get(str(loop), "-"), f"{subject}, {loop}" if loop in ("asyncio", "uvloop") else subject
        axes.errorbar(x, y, yerr=spread, label=label, color=colours[subject], linestyle=style, marker="o", markersize=4, capsize=2)
    ticks = sorted({row.setting[column] for row in rows})
    axes.set(title=plot.title, xlabel=column, ylabel=plot.y, xscale="log", yscale="log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
