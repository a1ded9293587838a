"""Print pip constraints: the lowest version of each optional dependency in pyproject.toml."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(
    Path(__file__).parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8")
)["project"]
for requirements in project["optional-dependencies"].values():
    for requirement in requirements:
        if floor := re.match(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", requirement):
            print(f"{floor[1]}=={floor[2]}")
