"""Draw the plots as SVG."""

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot

from bench.rows import Row
from bench.section import Histogram, Plot, Section

__all__ = ["draw"]

SIZE: Final = (9.0, 5.0)
BINS_OF_TEN: Final = 8
STYLES: Final = ("-", "--", ":")

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "lucia"  # the same rows give the same file


def draw(sections: Sequence[Section], rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw the plots that have rows, and return their files."""
    drawn: list[Path] = []
    for section in sections:
        for plot in section.plots:
            shown = [
                row
                for row in rows
                if row.section == section.name and plot.setting.items() <= row.setting.items()
            ]
            if shown:
                drawn.append(folder / f"{plot.name}.svg")
                axes: Any
                figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
                if isinstance(plot, Plot):
                    _draw_lines(plot, section.columns, shown, axes)
                else:
                    _draw_steps(plot, shown, axes)
                axes.grid(visible=True, alpha=0.3)
                figure.legend(loc="outside right upper", fontsize="small", frameon=False)
                figure.savefig(drawn[-1], metadata={"Date": None})
                pyplot.close(figure)
    return drawn


def _draw_lines(plot: Plot, column: str, rows: Sequence[Row], axes: Any) -> None:
    """Draw the medians, with error bars over all rounds.

    Each subject has a colour. Line styles tell apart what differs otherwise.
    """
    lines: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        of_the_line = (
            str(value) for name, value in row.setting.items() if name not in {column, *plot.setting}
        )
        lines.setdefault((row.subject, *of_the_line), []).append(row)
    colours = {
        subject: f"C{number}"
        for number, subject in enumerate(dict.fromkeys(subject for subject, *_ in lines))
    }
    styles = dict(zip(dict.fromkeys(tuple(others) for _, *others in lines), cycle(STYLES)))
    for (subject, *others), line in lines.items():
        line.sort(key=lambda row: row.setting[column])
        x, y = [row.setting[column] for row in line], [row.median for row in line]
        spread = [
            [row.median - min(row.values) for row in line],
            [max(row.values) - row.median for row in line],
        ]
        label, style = ", ".join([subject, *others]), styles[tuple(others)]
        axes.errorbar(
            x,
            y,
            yerr=spread,
            label=label,
            color=colours[subject],
            linestyle=style,
            marker="o",
            markersize=4,
            capsize=2,
        )
    ticks = sorted({row.setting[column] for row in rows})
    axes.set(title=plot.title, xlabel=column, ylabel=plot.y, xscale="log", yscale="log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()


def _draw_steps(plot: Histogram, rows: Sequence[Row], axes: Any) -> None:
    """Draw a histogram of each row's values, with bins of equal width on a logarithmic axis."""
    most = max(10 * plot.least, *(max(row.values) for row in rows))
    bins = [
        plot.least * 10 ** (number / BINS_OF_TEN)
        for number in range(math.ceil(BINS_OF_TEN * math.log10(most / plot.least)) + 2)
    ]
    for row in rows:
        shown = [max(value, plot.least * 1.01) for value in row.values]
        weights = [100 / len(shown)] * len(shown)
        axes.hist(
            shown,
            bins=bins,
            weights=weights,
            histtype="stepfilled",
            alpha=0.6,
            label=f"{row.setting[plot.by]} ({len(shown):,})",
        )
    axes.set(
        title=plot.title,
        xlabel=f"{plot.x}; at the left end {plot.least:g} or less",
        ylabel="per cent",
        xscale="log",
    )
