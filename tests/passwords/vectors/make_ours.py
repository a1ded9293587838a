"""Print hashes of LuciaHash for the passwords of passwords.json; see make.mjs."""

import json
import sys
from pathlib import Path

from lucia._rules.passwords import LuciaHash

passwords = {
    row["name"]: row["password"]
    for row in json.loads(Path(__file__).with_name("passwords.json").read_text(encoding="utf-8"))
}
rows = [
    {"name": name, "password": password, "hash": LuciaHash().hash(password)}
    for name, password in passwords.items()
]
json.dump(rows, sys.stdout)
