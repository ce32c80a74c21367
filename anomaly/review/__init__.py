"""The review: findings of score tables in a database, judged by inspectors, alone or together.

store.py       Store: all that can be done, each in one transaction
reader.py      Reader: all that can be asked, likewise
findings.py    what it holds, as Python has it
intake.py      score table -> findings         handout.py   who gets which image next
journal.py     the log of what was done        audit.py     the audit sample
evidence.py    the images on the disk          exports.py   CSV, JSON lines, COCO, folders
queries.py     how findings are chosen         schema.py    tables and migrations
chain.py       the log's digests               over_time.py scores in the order of time
columns.py     what columns hold               across.py    findings beside each other
database.py    transactions                    engine.py    opening an SQLite file or a Postgres
verdicts.py    what verdicts come to           estimates.py precision and recall
inspectors.py  how inspectors agree            threshold_preview.py  what another threshold flags
stream.py      findings of a service           outbox.py    from a service to the database
types.py       defect types as text           bulk.py      one verdict on many images
regions.py     where exactly defects are      coco.py, yolo.py  regions for other programs
jobs.py        the queue of jobs              job_worker.py the process that runs them
job_commands.py what a job may run            saved.py     filters by name
shifts.py      days and shifts                production.py  counts by day, shift, line, order
"""

from __future__ import annotations

from anomaly.errors import RuntimeMissing

try:
    import sqlalchemy as _sqlalchemy  # noqa: F401
except ImportError as error:
    raise RuntimeMissing.extra("SQLAlchemy", "review", "the review database") from error

from anomaly.review.evidence import ImageFile
from anomaly.review.findings import (
    Comparison,
    DefectType,
    Detector,
    Event,
    Filters,
    Finding,
    Folder,
    Progress,
    Run,
)
from anomaly.review.handout import QUEUES
from anomaly.review.queries import ORDERS
from anomaly.review.store import Store, default_key
from anomaly.review.verdicts import STATES, VERDICTS

__all__ = [
    "ORDERS",
    "QUEUES",
    "STATES",
    "VERDICTS",
    "Comparison",
    "DefectType",
    "Detector",
    "Event",
    "Filters",
    "Finding",
    "Folder",
    "ImageFile",
    "Progress",
    "Run",
    "Store",
    "default_key",
]
