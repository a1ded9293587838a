"""Print pip constraints: the lowest allowed version of each optional dependency and SQL driver."""

import re
import tomllib
from pathlib import Path

DRIVERS = ("aiomysql", "asyncmy", "asyncpg", "psycopg", "pymysql")
"""The drivers among what the tests need. An old SQLAlchemy does not know the newest of them."""

settings = tomllib.loads(
    Path(__file__).parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8")
)
optional = settings["project"]["optional-dependencies"].values()
needed = [requirement for requirements in optional for requirement in requirements]
needed += [each for each in settings["dependency-groups"]["dev"] if str(each).startswith(DRIVERS)]
for requirement in needed:
    if floor := re.match(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", requirement):
        print(f"{floor[1]}=={floor[2]}")
