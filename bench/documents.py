"""Write the report into the documentation, between two markers."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["write_into", "write_plots"]

BEGIN: Final = "<!-- what scripts/bench --write-docs wrote -->"
END: Final = "<!-- until here -->"


def write_into(document: Path, text: str) -> None:
    """Replace the text between the markers of a document.

    Raises:
        ValueError: the document has no markers.
    """
    before, _, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{document} must have the lines {BEGIN!r} and {END!r}")
    document.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}")


def write_plots(folder: Path, plots: Iterable[Path]) -> str:
    """Copy plots into the folder of a page, and return the Markdown that shows them."""
    folder.mkdir(exist_ok=True)
    pictures = [Path(shutil.copy(plot, folder)) for plot in plots]
    return "\n\n".join(f"![{picture.stem}]({folder.name}/{picture.name})" for picture in pictures)
