"""Keys of adapters before 1.1.0, which are bare ids: how ``lucia doctor`` tells them from other programs' keys, and moves them."""

from collections.abc import Sequence

from lucia._redis.commands import Call, OnNode, Operation
from lucia._redis.doctor.findings import Finding, Kind, RepairOptions
from lucia._redis.index import FIRST_PAGE, LIST
from lucia._redis.operations import milliseconds_of, to_bytes, to_text
from lucia._redis.records import Layout, peek
from lucia._redis.repair import SCAN_COUNT, Repair, RepairOperations, led_to
from lucia._redis.transport.client_errors import is_refusal
from lucia._rules.sessions import is_session_id
from lucia.models import SessionRow


class BareKeys:
    """Examines keys that are none of the layout's: a session stood at its bare id, and a list of such ids at the bare id of a user.

    They are moved on one server alone: in a cluster the two keys of a session are in different slots.
    """

    def __init__(
        self, layout: Layout, repair: Repair, mends: RepairOperations, treatment: RepairOptions
    ) -> None:
        self._layout = layout
        self._repair = repair
        self._mends = mends
        self._treatment = treatment

    def examine(self, node: str, names: Sequence[bytes]) -> Operation[list[Finding]]:
        """Look at keys of a node: ``TYPE``, which may be refused, and at what may be a bare key ``MGET`` or ``LRANGE``."""
        findings: list[Finding] = []
        try:
            kinds: list[bytes] = yield OnNode(node, tuple(Call("TYPE", (name,)) for name in names))
        except Exception as error:
            if not is_refusal(error):
                raise
            return [Finding(Kind.OTHERS_UNREADABLE)]
        may_move = self._treatment.fix and self._treatment.move_bare and node == ""
        for name, kind in zip(names, kinds, strict=True):
            if kind == b"string" and is_session_id(to_text(name)):
                (record,) = yield Call("MGET", (name,))
                if (row := peek(record or b"", to_text(name))) is not None:
                    findings.append(
                        Finding.about(
                            Kind.BARE_SESSION,
                            row,
                            may_move and (yield from self._move(row, name, record)),
                        )
                    )
            elif kind == b"list":
                head = yield Call("LRANGE", (name, 0, 0))
                if head and is_session_id(to_text(head[0])):
                    mended = may_move and (yield from self._move_index(name, findings))
                    findings.append(Finding(Kind.BARE_INDEX, mended, to_text(name)))
        return findings

    def _move(self, row: SessionRow, name: bytes, record: bytes) -> Operation[bool]:
        """Move a session from its bare id to where the layout has it, unless something is there; delete it if it is over."""
        key = to_bytes(self._layout.session_key(row.id))
        if row.idle_expires < milliseconds_of((yield Call("TIME", ()))):
            return (yield from self._mends.erase(name, b"string", record))
        if not (yield Call("RENAMENX", (name, key))):
            return False
        yield from self._mends.settle(key, record, row)
        yield from self._repair.index(row)
        return True

    def _move_index(self, name: bytes, findings: list[Finding]) -> Operation[bool]:
        """Move the sessions of a bare index, and delete it if one of them is the user's: only that shows that it is an index."""
        is_index, place = False, FIRST_PAGE
        while True:
            page = yield from LIST.read_page(name, place, SCAN_COUNT)
            replies: list[list[bytes | None]] = yield OnNode(
                "", tuple(Call("MGET", (id_,)) for id_ in page.ids)
            )
            for id_, (record,) in zip(page.ids, replies, strict=True):
                if record is not None and (row := peek(record, to_text(id_))) is not None:
                    findings.append(
                        Finding.about(
                            Kind.BARE_SESSION, row, (yield from self._move(row, id_, record))
                        )
                    )
            rows = yield from led_to(self._layout, "", page.ids)
            is_index = is_index or any(
                isinstance(row, SessionRow) and to_bytes(row.user_id) == name
                for row in rows.values()
            )
            if page.next is None:
                return is_index and (yield from self._mends.erase(name, b"list", None))
            place = page.next
