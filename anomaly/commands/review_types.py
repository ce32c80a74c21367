"""`anomaly review types`: the defect types that inspectors choose from."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from anomaly.commands.arguments import command
from anomaly.errors import AnomalyError
from anomaly.reporting.lines import line_of

if TYPE_CHECKING:
    from anomaly.review import DefectType


def add_types(actions: Any) -> argparse.ArgumentParser:
    """Adds `review types` to the actions of `review`."""
    p = command(
        actions,
        "types",
        run_types,
        "list or edit the defect types that inspectors choose from",
        "anomaly review types --add burr 'loose wire=#3a86ff'",
        "list the defect types that inspectors choose from, or edit them; the first "
        "nine have the keys 1 to 9",
    )
    change = p.add_mutually_exclusive_group()
    change.add_argument(
        "--add", nargs="+", metavar="NAME[=#RRGGBB]", help="append these to the list"
    )
    change.add_argument(
        "--remove",
        nargs="+",
        metavar="NAME",
        help="remove these; existing verdicts keep them",
    )
    change.add_argument("--set", nargs="+", metavar="NAME[=#RRGGBB]", help="replace the list")
    p.add_argument("--json", action="store_true")
    return p


def run_types(options: argparse.Namespace) -> None:
    from anomaly.detector.file import user
    from anomaly.review import Store, default_key

    with Store(options.db, create=False) as store:
        types = edited_types(options, store.defect_types())
        if options.add or options.remove or options.set:
            store.set_defect_types(types, by=user(), key=default_key())
    if options.json:
        print(json.dumps([asdict(kind) for kind in types], indent=2))
        return
    for kind in types:
        key = f"key {kind.key}" if kind.key else "no key"
        print(line_of(key, f"{kind.name} {kind.colour}"))


def edited_types(options: argparse.Namespace, known: list[DefectType]) -> list[DefectType]:
    """Returns the list of defect types as the options change it; AnomalyError for a name that is
    not on it.
    """
    from anomaly.review.types import check_names, from_lines, to_text

    check_names([*(options.add or ()), *(options.set or ())])
    if options.set:
        return from_lines(options.set, known)
    if options.add:
        return from_lines([*to_text(known).splitlines(), *options.add], known)
    names = {kind.name for kind in known}
    missing = [name for name in options.remove or () if name not in names]
    if missing:
        raise AnomalyError(f"defect type {missing[0]!r} found; on the list: {', '.join(names)}")
    if not options.remove:
        return known
    return from_lines(
        to_text(kind for kind in known if kind.name not in options.remove).splitlines(), known
    )
