"""The commands `anomaly review ...`: the dashboard, and its database for scripts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.commands.arguments import command
from anomaly.commands.review_alerts import add_alerts
from anomaly.commands.review_report import add_report
from anomaly.commands.review_types import add_types
from anomaly.errors import NOT_ALL_JUDGED, AnomalyError, RuntimeMissing
from anomaly.reporting.lines import line_of

if TYPE_CHECKING:
    from anomaly.review import Store

DATABASE = "review.db"


def add_review(commands: Any) -> None:
    """Adds `review` and its actions to the command line."""
    p = command(
        commands,
        "review",
        run_dashboard,
        "review flagged images in the dashboard",
        "anomaly review --detector run",
        "review flagged images in the dashboard, alone or together; anomaly score --review "
        "writes the database",
    )
    add_database(p, DATABASE)
    p.add_argument(
        "--detector",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="detector, for heatmaps and expected images",
    )
    p.add_argument(
        "--station",
        type=Path,
        action="append",
        default=[],
        metavar="TOML",
        help="station that anomaly run runs (its STATION.toml or state folder), for the page Live",
    )
    p.add_argument(
        "--jobs", type=Path, action="append", default=[], metavar="DIR",
        help="let admins train, calibrate and learn from the page Runs, below DIR",
    )  # fmt: skip
    p.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    p.add_argument("--port", type=int, default=8501)
    p.add_argument("--auth", type=Path, metavar="FILE", help="TOML: [auth] of an OpenID provider")
    p.add_argument(
        "--roles", type=Path, metavar="FILE",
        help="TOML: e-mail addresses of viewers, inspectors, admins",
    )  # fmt: skip
    p.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="host name that browsers use",
    )  # fmt: skip
    p.add_argument(
        "--plant", type=Path, metavar="TOML", help="shifts, names of lines and orders (Statistics)"
    )
    p.add_argument("--insecure", action="store_true", help="allow a public address without a login")
    actions = p.add_subparsers(metavar="ACTION")
    add_import(actions)
    add_export(actions)
    add_stats(actions)
    add_audit(actions)
    add_verify_log(actions)
    for added in (add_types(actions), add_report(actions), add_alerts(actions)):
        add_database(added)


def add_database(parser: argparse.ArgumentParser, default: str = argparse.SUPPRESS) -> None:
    """Adds --db; an action has no default, which would replace what was given before it."""
    parser.add_argument(
        "--db",
        default=default,
        metavar="DB",
        help=f"SQLite file or postgresql:// address (default {DATABASE})",
    )


def add_import(actions: Any) -> None:
    p = actions.add_parser("import", help="import a score table into the database")
    add_database(p)
    p.add_argument("table", type=Path, help="table written by anomaly score")
    p.add_argument("--name", help="name of the run (default: that of the file)")
    p.add_argument(
        "--detector", type=Path, action="append", default=argparse.SUPPRESS, metavar="RUN",
        help="detector that scored it, for its calibration",
    )  # fmt: skip
    p.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="base of relative paths (default: this folder)",
    )
    p.add_argument(
        "--root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder that images may be read from",
    )
    p.set_defaults(run=run_import)


def add_export(actions: Any) -> None:
    p = actions.add_parser("export", help="write findings and verdicts")
    add_database(p)
    p.add_argument("out", type=Path, help=".csv, .jsonl, .json (COCO), or a folder to train on")
    p.add_argument("--run", type=int, dest="run_number", metavar="N", help="only this run")
    p.add_argument("--link", action="store_true", help="link images instead of copying them")
    p.add_argument("--yolo", action="store_true", help="a folder as YOLO has it, of drawn regions")
    p.add_argument("--log", action="store_true", help="the log of all events (.jsonl)")
    p.set_defaults(run=run_export)


def add_stats(actions: Any) -> None:
    p = actions.add_parser("stats", help="progress by inspector, precision and recall")
    add_database(p)
    p.add_argument("--run", type=int, dest="run_number", metavar="N", help="only this run")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=run_stats)


def add_audit(actions: Any) -> None:
    p = actions.add_parser("audit", help="draw a random sample of images that were not flagged")
    add_database(p)
    p.add_argument(
        "--run",
        type=int,
        dest="run_number",
        metavar="N",
        help="run to draw from (default: the newest)",
    )
    p.add_argument(
        "--images",
        type=int,
        default=100,
        metavar="N",
        help="approximate size of the sample (default 100)",
    )
    p.add_argument("--seed", type=int, default=0, metavar="N")
    p.set_defaults(run=run_audit)


def add_verify_log(actions: Any) -> None:
    p = actions.add_parser("verify", help="verify that the log is unchanged")
    add_database(p)
    p.add_argument(
        "--head",
        metavar="DIGEST",
        help="digest of the log, stored elsewhere, that the log must still contain",
    )
    p.set_defaults(run=run_verify_log)


def run_verify_log(options: argparse.Namespace) -> None:
    from anomaly.reporting.review import log_text
    from anomaly.review import Store
    from anomaly.review.chain import in_words

    with Store(options.db, create=False) as store:
        chain = store.log_chain()
    head = (options.head or "").strip().removeprefix("sha256:").lower()
    if chain.wrong:
        raise AnomalyError(
            f"{options.db}: the log was rewritten: {in_words(chain.wrong)}: restore a backup"
        )
    if head and not chain.holds(head):
        raise AnomalyError(
            f"{options.db}: digest {head[:16]} is none that the log had, it was rewritten: restore "
            "a backup"
        )
    print(line_of("whole", log_text(len(chain.digests), chain.before)))
    print(line_of("head", f"sha256:{chain.head}   (keep it elsewhere; --head compares)"))


def run_dashboard(options: argparse.Namespace) -> int:
    try:
        from dashboard.launch import Places, launch
    except ImportError as error:
        raise RuntimeMissing.extra(
            error.name or "streamlit", "dashboard", "the review dashboard"
        ) from error
    status: int = launch(
        options.db,
        options.host,
        options.port,
        insecure=options.insecure,
        roles=options.roles,
        auth_file=options.auth,
        allowed_hosts=options.allow_host,
        places=Places(options.detector, options.station, options.jobs, options.plant),
    )
    return status


def import_into(
    database: str,
    table: Path,
    detector: Path | None = None,
    *,
    name: str | None = None,
    folder: Path | None = None,
    roots: Sequence[Path] = (),
) -> str:
    """Puts a score table into a review database and returns what that did, in words."""
    from anomaly.detector.file import read_card, user
    from anomaly.review import Store

    card = read_card(detector) if detector else None
    with Store(database) as store:
        run, new = store.import_table(
            table, name=name, folder=folder, roots=roots, card=card, by=user()
        )
        for root in () if new else roots:  # the table is known, the folder may be new
            store.add_root(run.id, root, by=user(), key=f"root {run.id} {root.resolve()}"[-200:])
    review = f", {run.review} for review" if run.review else ""
    what = f"run {run.id} {run.name}: {run.images} images, {run.flagged} flagged{review}"
    return line_of("review", f"{what}{'' if new else ' (it was there already)'} in {database}")


def run_import(options: argparse.Namespace) -> None:
    if len(options.detector) > 1:
        raise AnomalyError(
            f"--detector: {len(options.detector)} found, the one that scored {options.table} "
            "expected"
        )
    given = {"name": options.name, "folder": options.folder, "roots": options.root}
    print(import_into(options.db, options.table, next(iter(options.detector), None), **given))


def check_run(store: Store, run: int | None) -> None:
    """Raises AnomalyError that names the runs there are, where ``run`` is not one of them."""
    runs = store.runs()
    if run is not None and run not in {one.id for one in runs}:
        there = ", ".join(f"{one.id} {one.name}" for one in runs[:10]) or "none"
        raise AnomalyError(f"--run {run}: no such run in {store.url}; there: {there}")


def run_export(options: argparse.Namespace) -> int:
    from anomaly.review import Filters, Store
    from anomaly.review.exports import export_events, export_findings, export_folder
    from anomaly.review.yolo import export_yolo

    filters = Filters(run=options.run_number)
    with Store(options.db, create=False) as store:
        check_run(store, options.run_number)
        if options.log:
            done = export_events(store, options.out, options.run_number)
        elif options.yolo:
            done = export_yolo(store, options.out, filters, link=options.link)
        elif options.out.suffix:
            done = export_findings(store, options.out, filters)
        else:
            done = export_folder(store, options.out, filters, link=options.link)
    print(line_of("written", f"{options.out}   {done.written} entries"))
    for line in done.left_out:
        print(line_of("left out", line))
    return NOT_ALL_JUDGED if done.left_out else 0


def run_stats(options: argparse.Namespace) -> None:
    from anomaly.reporting.review import estimate_text
    from anomaly.review import Store
    from anomaly.review.estimates import precision, recall

    with Store(options.db, create=False) as store:
        check_run(store, options.run_number)
        team = store.team(options.run_number)
        runs = [run for run in store.runs() if options.run_number in (None, run.id)]
        progress = {run: store.progress(run.id) for run in runs}
        figures = {
            run: (precision(store.sample(run.id)), recall(store.sample(run.id))) for run in runs
        }
    if options.json:
        rows = [
            {**asdict(run), **asdict(progress[run]), "precision": asdict(p), "recall": asdict(r)}
            for run, (p, r) in figures.items()
        ]
        print(json.dumps({"runs": rows, "team": asdict(team)}, indent=2, default=str))
        return
    for run, (p, r) in figures.items():
        done = progress[run]
        judged = f"{done.flagged_judged} of {done.flagged} flagged images judged"
        audit = f"audit sample {done.audit_judged} of {done.audit}"
        print(line_of(f"run {run.id}", f"{run.name}: {judged}; {audit}"))
        print(line_of("  precision", estimate_text(p)))
        print(line_of("  recall", estimate_text(r)))
    for person in team.inspectors:
        said = (
            f"{person.anomalous} anomalous, {person.normal} normal, {person.unsure} unsure, "
            f"{person.skipped} skipped"
        )
        print(line_of(person.name, said))
    for pair in team.agreements:
        kappa = "unknown" if pair.kappa is None else f"{pair.kappa:.2f}"
        alike = f"{pair.same} of {pair.n} alike, kappa {kappa}"
        print(line_of(f"{pair.a} and {pair.b}", alike))


def run_audit(options: argparse.Namespace) -> None:
    from anomaly.detector.file import user
    from anomaly.review import Store, default_key

    with Store(options.db, create=False) as store:
        check_run(store, options.run_number)
        runs = store.runs()
        if not runs:
            raise AnomalyError(
                f"{options.db}: no run found; import a score table first: anomaly review import "
                "TABLE"
            )
        run = options.run_number or runs[0].id
        strata = store.draw_audit(run, options.images, options.seed, by=user(), key=default_key())
    drawn = sum(stratum.drawn for stratum in strata if stratum.number)
    print(
        line_of(
            "audit sample",
            f"{drawn} images of run {run} that were not flagged, drawn at random; judge them in "
            "the dashboard",
        )
    )
