"""Put the files of ``examples/small`` into the pages that show them: ``python tools/examples.py``.

A page has a comment with the path, ``<!-- examples/small/flask_app.py -->``, and below it the block
with the file. ``--check`` writes nothing; it prints the pages that differ, and exits with 1 if any.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Final

__all__ = ["main", "with_examples"]

ROOT: Final = Path(__file__).resolve().parent.parent
SHOWN: Final = re.compile(r"<!-- (examples/small/[\w/.]+) -->\n(?:\n```py\n.*?\n```\n)?", re.DOTALL)


def with_examples(page: str) -> str:
    """Return a page with the files in it."""

    def block(found: re.Match[str]) -> str:
        text = (ROOT / found[1]).read_text(encoding="utf-8").strip("\n")
        # Not "python": those blocks run one after another as tests of the page, these as files.
        return f"<!-- {found[1]} -->\n\n```py\n{text}\n```\n"

    return SHOWN.sub(block, page)


def main(arguments: list[str]) -> int:
    """Write or check all pages, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(arguments).check
    differing = 0
    for path in sorted(ROOT.glob("docs/*.md")):
        text = path.read_text(encoding="utf-8")
        new = with_examples(text)
        if new != text:
            differing += 1
            print(f"{'differs from its examples' if check else 'wrote'}: {path.relative_to(ROOT)}")
            if not check:
                path.write_text(new, encoding="utf-8")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
