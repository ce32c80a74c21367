"""The review database: findings, who said what of them, and who is looking at what.

What inspectors do is a log of events that is only ever added to: a verdict is changed by another
one and taken back by an ``undo``. What the verdicts on a finding come to (its state) follows from
the events, and is kept with it for speed.

Higher score = more anomalous. Times are UTC, as text: 2026-01-31T23:59:59.123Z.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from anomaly.detector.card import Card
from anomaly.errors import AnomalyError
from anomaly.imaging.drawn_regions import Region
from anomaly.review import audit, handout, intake, journal, schema
from anomaly.review.bulk import BulkVerdicts, check_on_the_list
from anomaly.review.findings import (
    DefectType,
    Event,
    Filters,
    Finding,
    Run,
)
from anomaly.review.journal import Click
from anomaly.review.queries import (
    FINDING,
    ROOTS,
    as_finding,
    find_row,
    find_run,
)
from anomaly.review.reader import EVERYTHING
from anomaly.review.saved import SavedFilters
from anomaly.review.stream import Sent, Stream, newest_sent
from anomaly.review.stream import append as append_findings
from anomaly.review.verdicts import VERDICTS, Stratum

LEASE_SECONDS = 300.0


def default_key() -> str:
    """A new idempotency key: make it when a button is drawn, not when it is pressed, and a double
    press counts once.
    """
    return uuid.uuid4().hex


class Store(BulkVerdicts, SavedFilters):
    """A review database: an SQLite file, made where there is none, or a Postgres by its URL.
    Threads may share it.

        with Store("review.db") as store:
            run, new = store.import_table(Path("scores.csv"), by="ann")
            finding = store.next("ann", filters=Filters(run=run.id))[0]
            store.record("ann", finding.id, "normal", key=default_key())

    Every method is one transaction; when one that writes returns, what it wrote is on the disk.
    ``key`` is that of one click: the same key again changes nothing. An older database is migrated;
    a newer one, or one that is something else, is an AnomalyError, as is whatever cannot be done.
    ``create=False``: so is one that is not there or empty. ``clock``: seconds since 1970, by
    default those of the database's host.
    """

    def import_table(
        self,
        table: Path,
        *,
        name: str | None = None,
        folder: Path | None = None,
        roots: Sequence[Path] = (),
        card: Card | None = None,
        by: str = "import",
    ) -> tuple[Run, bool]:
        """The run of a score table, and whether it is new: the same file a second time adds
        nothing.

        ``name``: of the run (default: the file's, numbered where it is taken); ``folder``: what
        relative paths are relative to (default: the current one); ``roots``: the folders that
        images may be read from (default: the images' common one); ``card``: of the detector that
        scored it.
        """
        source = intake.Source(table, name, Path(folder or Path.cwd()).absolute(), roots, card)
        digest = intake.fingerprint(table)
        click = Click.of(by, f"import {digest}")
        with self._db.write() as c:
            known = intake.known_run(c, digest)
            if known is not None:
                return find_run(c, known), False
            run = find_run(
                c, intake.insert_run(c, source, digest, click.inspector, self._db.now_text(c))
            )
            payload = {"name": run.name, "images": run.images, "flagged": run.flagged}
            journal.append(
                c,
                click,
                self._db.now_text(c),
                "import",
                run=run.id,
                detector=run.detector,
                threshold=run.threshold,
                payload=payload,
            )
            return run, True

    def add_findings(self, stream: Stream, sent: Sequence[Sent], passed: int, *, by: str) -> Run:
        """Adds findings of a service to its run and returns that; ``passed``: images that were
        judged and are not stored.
        """
        with self._db.write() as c:
            at = self._db.now_text(c)
            number, new = append_findings(c, stream, sent, passed, by, at)
            run = find_run(c, number)
            if new:
                click = Click.of(by, f"import {stream.fingerprint}"[:200])
                payload = {"name": run.name, "images": run.images, "flagged": run.flagged}
                journal.append(
                    c, click, at, "import",
                    run=run.id, detector=run.detector, threshold=run.threshold, payload=payload,
                )  # fmt: skip
        self._folders.pop(run.id, None)
        return run

    def newest_sent(self, sender: str) -> int | None:
        """The number of the newest result that any run of a sender holds; None without one."""
        with self._db.read() as c:
            return newest_sent(c, sender)

    def add_root(self, run: int, folder: Path, *, by: str, key: str) -> None:
        """Lets a run's images be read from one more folder, with what lies below it."""
        if not folder.is_dir():
            raise AnomalyError(
                f"{folder}: no such folder; one that holds images of the run was expected"
            )
        click, real = Click.of(by, key), os.fspath(folder.resolve())
        with self._db.write() as c:
            if journal.repeated(c, click, "root"):
                return
            journal.append(
                c,
                click,
                self._db.now_text(c),
                "root",
                run=find_run(c, run).id,
                payload={"folder": real},
            )
            if real not in c.execute(ROOTS.where(schema.roots.c.run == run)).scalars().all():
                c.execute(schema.roots.insert().values(run=run, folder=real))

    def next(
        self,
        inspector: str,
        queue: str = "anomalous",
        filters: Filters = EVERYTHING,
        count: int = 1,
        seconds: float = LEASE_SECONDS,
        known_share: float = 0.0,
        after: int | None = None,
        besides: Collection[int] = (),
    ) -> list[Finding]:
        """Up to ``count`` findings for this inspector to judge, leased for ``seconds``: nobody else
        gets these images.

        ``queue``: ``anomalous`` (highest score first), ``uncertain`` (nearest the threshold),
        ``audit`` (the audit sample, lowest lot first) or ``second`` (unsure, or inspectors
        disagree). ``filters.run`` says of which run, and has to; ``filters.state`` or
        ``filters.inspector`` replaces the queue's own choice of states. What the inspector holds
        already comes first, so that asking again gives the same; what they judged or skipped never
        comes. ``known_share``: how many of the new ones are to be hidden known images of the same
        detector, as far as there are any. ``after``: only what comes behind this finding of the run
        in the queue's order. ``besides``: findings that the inspector has before them already.
        """
        if filters.run is None:
            raise AnomalyError(
                "no run given, one of Store.runs() expected: scores of different runs do not "
                "compare"
            )
        who = journal.name(inspector)
        asked = handout.Asked(who, queue, filters, count, seconds, known_share, after, besides)
        with self._db.write(lasting=False) as c:
            return [as_finding(row) for row in handout.hand_out(c, self._db.now(c), asked)]

    def renew(
        self, inspector: str, findings: Collection[int], seconds: float = LEASE_SECONDS
    ) -> list[int]:
        """Keeps leases for ``seconds`` more and returns those findings that the inspector still
        holds.
        """
        with self._db.write(lasting=False) as c:
            return handout.renew(c, self._db.now(c), journal.name(inspector), findings, seconds)

    def release(self, inspector: str, findings: Collection[int] | None = None) -> None:
        """Gives images back to the queue: those of ``findings``, or all that this
        inspector holds.
        """
        with self._db.write(lasting=False) as c:
            handout.release(c, journal.name(inspector), findings)

    def record(
        self,
        inspector: str,
        finding: int,
        verdict: str,
        *,
        key: str,
        defect_type: str | None = None,
        comment: str = "",
        seconds: float | None = None,
        regions: Sequence[Region] = (),
    ) -> Event:
        """The event of a verdict, one of VERDICTS, which counts until this inspector gives another
        or takes it back.

        ``defect_type`` and ``regions`` go with ``anomalous`` only. ``seconds``: how long the
        inspector looked. ``skip`` puts the image aside for this inspector.
        """
        if verdict not in VERDICTS:
            raise AnomalyError(f"verdict {verdict!r} found, one of {', '.join(VERDICTS)} expected")
        if defect_type is not None and verdict != "anomalous":
            raise AnomalyError(
                f"defect type {defect_type!r} with verdict {verdict!r} found: only anomalous "
                "images have one"
            )
        if regions and verdict != "anomalous":
            raise AnomalyError(f"regions with {verdict!r} found: only anomalous images have some")
        click, payload = Click.of(inspector, key), journal.payload_of(comment, seconds)
        if regions:
            payload = {**payload, "regions": [region.to_json() for region in regions]}
        with self._db.write() as c:
            if done := journal.repeated(c, click, verdict, finding):
                return done
            row = find_row(c, finding)
            for name in {defect_type, *(region.defect_type for region in regions)}:
                check_on_the_list(c, name)
            at = self._db.now_text(c)
            done = journal.append_on(
                c, click, at, verdict, row, defect_type=defect_type, payload=payload
            )
            journal.settle(c, finding)
            handout.release(c, click.inspector, [finding])
            return done

    def undo(
        self, inspector: str, *, key: str, event: int | None = None, run: int | None = None
    ) -> Event | None:
        """The event that takes back one of this inspector's own verdicts or comments; ``undoes``
        says which.

        ``event``: its number; without one it is the last verdict that is not undone (of ``run``,
        where given), and None is returned where there is none. The verdict before it, if any,
        counts again. The image is leased to the inspector, unless somebody else holds it.
        """
        click = Click.of(inspector, key)
        with self._db.write() as c:
            if done := journal.repeated(c, click, "undo", undoes=event):
                return done
            who = click.inspector
            target = (
                journal.last_verdict(c, who, run) if event is None else journal.own(c, who, event)
            )
            if target is None or target.finding is None:
                return None
            row = find_row(c, target.finding)
            done = journal.append_on(c, click, self._db.now_text(c), "undo", row, undoes=target.id)
            if target.action in VERDICTS:
                journal.settle(c, row.id)
                handout.lease_again(c, who, row.image, self._db.now(c), LEASE_SECONDS)
            return done

    def comment(self, inspector: str, finding: int, text: str, *, key: str) -> Event:
        """The event of a comment on a finding. It changes no verdict, and can be undone."""
        click, payload = Click.of(inspector, key), {"text": journal.comment(text)}
        with self._db.write() as c:
            if done := journal.repeated(c, click, "comment", finding):
                return done
            return journal.append_on(
                c, click, self._db.now_text(c), "comment", find_row(c, finding), payload=payload
            )

    def set_defect_types(self, types: Sequence[DefectType], *, by: str, key: str) -> None:
        """Replaces the list of defect types. Verdicts keep the type they were given, on the list or
        not.
        """
        _check_defect_types(types)
        click, rows = Click.of(by, key), [asdict(kind) for kind in types]
        with self._db.write() as c:
            if journal.repeated(c, click, "types"):
                return
            journal.append(c, click, self._db.now_text(c), "types", payload={"types": rows})
            c.execute(schema.defect_types.delete())
            if rows:
                c.execute(
                    schema.defect_types.insert(),
                    [{"place": i, **row} for i, row in enumerate(rows)],
                )

    def draw_audit(
        self, run: int, images: int, seed: int = 0, *, by: str, key: str
    ) -> list[Stratum]:
        """Draws an audit sample of about ``images`` of a run (see ``verdicts.draw``) and returns
        its strata.

        A second draw makes it larger; it keeps the seed and what was drawn before.
        """
        click = Click.of(by, key)
        with self._db.write() as c:
            if not journal.repeated(c, click, "audit"):
                drawn = audit.draw_sample(c, find_run(c, run).id, images, seed)
                payload = {"images": images, "seed": seed, "drawn": drawn}
                journal.append(c, click, self._db.now_text(c), "audit", run=run, payload=payload)
            return audit.read_strata(c, run)

    def set_known(self, finding: int, truth: str | None, *, by: str, key: str) -> None:
        """Makes a finding a hidden known image to measure inspectors by: ``anomalous``, ``normal``,
        or None for not.
        """
        if truth not in (None, "anomalous", "normal"):
            raise AnomalyError(f"truth {truth!r} found; anomalous, normal or None expected")
        click = Click.of(by, key)
        with self._db.write() as c:
            if not journal.repeated(c, click, "known", finding):
                row, at = find_row(c, finding), self._db.now_text(c)
                journal.append_on(c, click, at, "known", row, payload={"truth": truth})
                c.execute(schema.findings.update().where(FINDING.id == finding).values(truth=truth))

    def set_threshold(
        self,
        run: int,
        threshold: float,
        *,
        by: str,
        key: str,
        detector: str | None = None,
        path: str = "",
        identity: tuple[str, str] | None = None,
    ) -> Event:
        """Notes in the log who chose a threshold after looking at a run, with digest, path and
        identity (name and version) of the detector made."""
        click = Click.of(by, key)
        with self._db.write() as c:
            if done := journal.repeated(c, click, "threshold"):
                return done
            parent, at = find_run(c, run), self._db.now_text(c)
            payload = {
                "parent": parent.detector,
                "parent_threshold": parent.threshold,
                "path": path,
            }
            if identity is not None:
                payload |= {"name": identity[0], "version": identity[1]}
            return journal.append(
                c,
                click,
                at,
                "threshold",
                run=run,
                threshold=threshold,
                detector=detector,
                payload=payload,
            )


def _check_defect_types(types: Sequence[DefectType]) -> None:
    """A type's name becomes the name of a folder in an export."""
    for kind in types:
        name = journal.line(kind.name, "defect type", 60)
        unfit = (
            re.search(r'[/\\:*?"<>|]', name)
            or name.startswith(".")
            or name.lower() in ("good", "normal")
        )
        if name != kind.name or unfit:
            raise AnomalyError(
                f'defect type {name!r} found, a name without / \\ : * ? " < > | expected, not good '
                "or normal"
            )
        if kind.key not in (None, *range(1, 10)) or not re.fullmatch(
            r"#[0-9a-fA-F]{6}", kind.colour
        ):
            raise AnomalyError(
                f"defect type {name!r}: key {kind.key!r}, colour {kind.colour!r}; 1 to 9 and "
                "#rrggbb expected"
            )
    keys = [kind.key for kind in types if kind.key is not None]
    if len(keys) != len(set(keys)) or len({kind.name.lower() for kind in types}) != len(types):
        raise AnomalyError("two defect types with the same name or key found: give each its own")
