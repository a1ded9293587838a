from collections.abc import Iterable, Mapping

class Rule:
    token_replacements: dict[str, str]
    def __init__(
        self, fromdir: str, todir: str, additional_replacements: Mapping[str, str] | None = None
    ) -> None: ...

def unasync_files(fpath_list: Iterable[str], rules: Iterable[Rule]) -> None: ...
