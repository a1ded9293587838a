"""Copy live sessions from one store to another, while the application runs: ``lucia copy``.

An operator moves a running application like this:

1. **Copy**, as often as wanted. The application reads and writes the source. Only the copy writes
   to the destination.
2. **Copy once more, then switch**: every process of the application gets the new store. Old
   processes still write to the source, new ones to the destination. No copy should run meanwhile.
3. **Copy for the last time**, when no process uses the source any more. The application writes to
   the destination. The source does not change, except that sessions expire.

After the last run:

* Every session that was live in the source at the switch is live in the destination, unless the
  destination has renewed, changed or revoked it since.
* A login that was revoked in the source is revoked in the destination too, also if the destination
  has renewed it meanwhile: a revocation is somebody's decision, a renewal is not.
* What the destination has renewed or revoked stays so. The copy never overwrites it.
* A used id leads to its successor for as long as it would have in the source.

How a run knows what has changed
================================

A state file (:mod:`lucia._copy.ledger`) has an entry for each session that was copied: a digest of
its id in the destination, its user, a digest of its handle, a fingerprint of the record that was
written, and the number of the run that saw it last in the source. Memory is bounded by a page, and
no session id is on the disk. A session of the source is then one of these:

* **Not in the file**: it is inserted, unless a session has this id. If the file knows other
  sessions of its login, and the destination has none any more, then the destination has revoked the
  login, and it is not inserted either.
* **In the file**: it is *never inserted again*. So if the destination does not have it, then the
  destination has renewed or revoked it, and that stays so. If its record has changed in the source,
  it is updated in the destination, by a write that compares the record there with the fingerprint.
* **In the file, and not seen in the source by this run**: it was renewed or revoked there. The
  user's sessions are read from the index of the source to make sure. If its login is alive, then it
  was renewed, and the used id alone is removed, by a write that compares the record. Otherwise the
  login is revoked in the destination, along all renewals.

Each run walks over the whole source. A walk that is interrupted can't go on later from where it
was, since what it has seen may have been revoked meanwhile; but what it has copied is in the file,
so the next run only has to read it.

An interrupted run
==================

A write to the destination and an entry in the file are two steps, and the copy may be killed in
between. If it then found neither the entry nor the session, it could not tell whether it never
wrote the session or whether somebody has revoked it. So the first step leaves a trace in the
destination, atomically: in Redis a receipt beside the session (:mod:`lucia._copy.redis`), in SQL a
row that is no session yet (:mod:`lucia._copy.sql`). The second step is the entry in the file. The
third one removes the trace. Each step can be repeated.

If the source has revoked or renewed the session before the next run, then that run's walk does not
see it, and the file does not know it. So a run reads all traces first, and after its walk removes
what has a trace and no entry as it removes the others: the session itself if its login is alive in
the source, and else the login.

Before the copy removes a session from the destination, its entry is marked as leaving: an entry
that is not leaving, of a session that the destination does not have, always means that somebody
else has removed it.
"""
