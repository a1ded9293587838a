"""Keys of adapters before 1.1.0, which had no prefix.

The session ``{id}`` was stored at the key ``{id}``, and the list of a user's session ids at the key
``{user id}``. These keys are told from those of other programs by what they hold.
"""

from collections.abc import Sequence

from lucia._redis.commands import Call, OnNode, Operation
from lucia._redis.doctor.findings import Finding, Kind, RepairOptions
from lucia._redis.index import FIRST_PAGE, LIST
from lucia._redis.keys import Layout
from lucia._redis.operations import milliseconds_of, to_bytes, to_text
from lucia._redis.records import peek
from lucia._redis.repair import SCAN_COUNT, Repair, RepairOperations, resolve_ids
from lucia._redis.transport.client_errors import is_refusal
from lucia._rules.sessions import is_session_id
from lucia.models import SessionRow


class BareKeyExaminer:
    """Finds bare keys among those that do not belong to the layout, and moves them to its names.

    Only on a single server: in a cluster, the old and the new key of a session are in different
    slots, and ``RENAMENX`` can't move a key to another node.
    """

    def __init__(
        self, layout: Layout, repair: Repair, repairs: RepairOperations, options: RepairOptions
    ) -> None:
        self._layout = layout
        self._repair = repair
        self._repairs = repairs
        self._options = options

    def examine(self, node: str, names: Sequence[bytes]) -> Operation[list[Finding]]:
        """Examine keys of a node: ``TYPE``, then ``MGET`` or ``LRANGE`` of what may be a bare key.

        A server user without rights to other keys is one finding, not an error.
        """
        findings: list[Finding] = []
        try:
            kinds: list[bytes] = yield OnNode(node, tuple(Call("TYPE", (name,)) for name in names))
        except Exception as error:
            if not is_refusal(error):
                raise
            return [Finding(Kind.OTHERS_UNREADABLE)]
        may_move = self._options.fix and self._options.move_bare and node == ""
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
                    fixed = may_move and (yield from self._move_index(name, findings))
                    findings.append(Finding(Kind.BARE_INDEX, fixed, to_text(name)))
        return findings

    def _move(self, row: SessionRow, name: bytes, record: bytes) -> Operation[bool]:
        """Move a session from its bare id to the layout's key, or delete it if it has expired.

        Returns:
            Whether that was done. False if the layout's key exists already: nothing is overwritten
            (I4).
        """
        key = to_bytes(self._layout.session_key(row.id))
        if row.idle_expires < milliseconds_of((yield Call("TIME", ()))):
            return (yield from self._repairs.delete_unchanged(name, b"string", record))
        if not (yield Call("RENAMENX", (name, key))):
            return False
        yield from self._repairs.set_expiry(key, record, row)
        yield from self._repair.add_to_index(row)
        return True

    def _move_index(self, name: bytes, findings: list[Finding]) -> Operation[bool]:
        """Move the sessions of a bare index, then delete the index."""
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
            rows = yield from resolve_ids(self._layout, "", page.ids)
            # Deleted only if one of its ids leads to a session of the user that it is named after:
            # nothing else tells an index from another program's list of 40-character words.
            is_index = is_index or any(
                isinstance(row, SessionRow) and to_bytes(row.user_id) == name
                for row in rows.values()
            )
            if page.next is None:
                return is_index and (yield from self._repairs.delete_unchanged(name, b"list", None))
            place = page.next
