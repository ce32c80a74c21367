"""The commands that ask whether a detector is still right, and `report` for whoever audits it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.inputs.labels import given_names


def add_verify(commands: Any) -> None:
    """Adds `verify` to the command line."""
    from anomaly.commands.arguments import add_good, command

    p = command(
        commands,
        "verify",
        run_verify,
        "check that a detector scores right on this machine, and flags known bad parts",
        "anomaly verify run --challenge photos/known_bad",
    )
    p.add_argument("detector", type=Path, nargs="?", metavar="RUN")
    p.add_argument(
        "images",
        type=Path,
        nargs="?",
        help="your own images: torch and ONNX are compared on them (needs torch)",
    )
    p.add_argument(
        "--challenge",
        type=Path,
        metavar="DIR",
        help="known bad parts: exit with 1 unless all are flagged",
    )
    add_good(p)
    p.add_argument(
        "--repeat",
        type=Path,
        metavar="DIR",
        help="the same parts photographed many times: count flips",
    )
    p.add_argument(
        "--group-by",
        metavar="REGEX",
        help="of --repeat: paths that match alike (first group) show one part",
    )
    p.add_argument(
        "--key",
        type=Path,
        metavar="PUB",
        help="a public key by which the file must be signed: anomaly sign",
    )
    p.add_argument(
        "--audit",
        type=Path,
        metavar="ZIP",
        help="instead: that an archive of anomaly report is whole",
    )
    p.add_argument(
        "--review",
        metavar="DB",
        help="with --audit: the review database, whose log is compared with the archive's",
    )
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run_verify(options: argparse.Namespace) -> int:
    from anomaly.commands.arguments import import_training, say
    from anomaly.errors import NOT_ALL_JUDGED
    from anomaly.quality.audit import note_check
    from anomaly.quality.audit_check import verify_audit
    from anomaly.scorer import Scorer

    if options.audit:
        if options.detector:
            raise AnomalyError(
                f"{options.detector} and --audit found, one of them expected: an archive is "
                "verified by itself"
            )
        print(verify_audit(options.audit, options.key, options.review))
        return 0
    if options.review:
        raise AnomalyError(
            "--review without --audit found, both expected: anomaly review verify looks at a "
            "database alone"
        )
    if not options.detector:
        raise AnomalyError("nothing to verify found: give RUN, or --audit ZIP")
    scorer = Scorer(options.detector, device=options.device, key=options.key)
    if options.key:
        print(
            "signature               right: this very file was signed with the key of "
            f"{options.key}"
        )
    worst = scorer.verify_golden()
    samples = len(scorer.card.golden.get("samples", []))
    print(
        f"golden samples          {samples} of {samples} right on {scorer.device}, within "
        f"{worst:.2g} of the tolerance"
    )
    if options.images:
        import_training()
        from training.restore import verify_images

        print(verify_images(options.detector, options.images, scorer.card))
    not_judged, found = 0, {"golden": f"{samples} of {samples} right on {scorer.device}"}
    if options.repeat:
        from anomaly.quality.challenge import repeat

        repeated = repeat(scorer, options.repeat, options.group_by)
        print(repeated.text())
        found["repeat"] = repeated.text()
        not_judged += repeated.not_judged
    if options.challenge:
        from anomaly.quality.challenge import challenge

        challenged = challenge(scorer, options.challenge, given_names(options.good), say)
        print(challenged.text())
        found["challenge"] = challenged.text()
        not_judged += len(challenged.not_judged)
    note_check(options.detector, options.command_line, scorer.card, found)
    if options.challenge and challenged.missed:
        raise AnomalyError(
            f"{len(challenged.missed)} of {challenged.judged} known bad parts were not flagged, "
            "all expected: look; a higher --false-alarm-rate (anomaly calibrate) or more training "
            "images may flag them"
        )
    return NOT_ALL_JUDGED if not_judged else 0


def add_check(commands: Any) -> None:
    """Adds `check` to the command line."""
    from anomaly.commands.arguments import add_good, add_independent, command, number

    p = command(
        commands,
        "check",
        run_check,
        "say whether to keep, recalibrate or retrain a detector, from new good images",
        "anomaly check run photos/good_today",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument(
        "normal",
        type=Path,
        metavar="NEW_GOOD",
        help="good images of today, which training did not see",
    )
    p.add_argument(
        "--group-by",
        metavar="REGEX",
        help="images whose path matches alike (first group) are one part or lot",
    )
    add_good(p)
    add_independent(p)
    p.add_argument(
        "--seed",
        type=number(0),
        default=0,
        metavar="N",
        help="of the draw of one image from each group",
    )
    p.add_argument("--json", action="store_true", help="print the figures as JSON")
    p.add_argument(
        "--fail-unless-keep", action="store_true", help="exit with 4 if the verdict is not keep"
    )


def run_check(options: argparse.Namespace) -> int:
    from anomaly.commands.arguments import say
    from anomaly.detector.file import read_card
    from anomaly.errors import FOUND_ANOMALY
    from anomaly.files.left_out import left_out_lines
    from anomaly.quality.audit import note_check
    from anomaly.quality.check import check

    found = check(
        options.detector,
        options.normal,
        group_by=options.group_by,
        seed=options.seed,
        independent=options.independent,
        good=given_names(options.good),
        say=say,
    )
    for line in left_out_lines(found.left_out):
        say(line)
    text = found.text(str(options.detector), str(options.normal))
    note_check(options.detector, options.command_line, read_card(options.detector), found.to_json())
    print(json.dumps(found.to_json(), indent=2) if options.json else text)
    return FOUND_ANOMALY if options.fail_unless_keep and found.verdict != "keep" else 0


def add_compare(commands: Any) -> None:
    """Adds `compare` to the command line."""
    from anomaly.commands.arguments import add_good, command

    p = command(
        commands,
        "compare",
        run_compare,
        "say which images a new detector would judge otherwise, both ways",
        "anomaly compare run run2 photos --report flips.html",
    )
    p.add_argument("old", type=Path, metavar="OLD")
    p.add_argument("new", type=Path, metavar="NEW")
    p.add_argument(
        "images",
        type=Path,
        metavar="IMAGES",
        help="a folder or manifest; labels say which one is better",
    )
    p.add_argument("--json", action="store_true", help="print the figures as JSON")
    p.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write an HTML report with pictures of the flips",
    )
    add_good(p)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run_compare(options: argparse.Namespace) -> int:
    from anomaly.commands.arguments import check_folders, say
    from anomaly.errors import NOT_ALL_JUDGED
    from anomaly.quality.audit import note_check
    from anomaly.quality.compare import compare
    from anomaly.scorer import Scorer

    check_folders(options.report)
    old, new = (Scorer(path, device=options.device) for path in (options.old, options.new))
    found = compare(
        old, new, options.images, report=options.report, good=given_names(options.good), say=say
    )
    print(json.dumps(found.to_json(), indent=2) if options.json else found.text())
    note_check(options.new, options.command_line, new.card, found.to_json())
    return NOT_ALL_JUDGED if found.not_judged else 0


def add_report(commands: Any) -> None:
    """Adds `report` to the command line."""
    from anomaly.commands.arguments import command

    p = command(
        commands,
        "report",
        run_report,
        "write what an auditor asks of a detector into one archive that can be verified",
        "anomaly report run --audit audit.zip --review review.db",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--audit", type=Path, required=True, metavar="ZIP", help="archive to write")
    p.add_argument(
        "--review",
        metavar="DB",
        help="a review database: its verdicts and changes of the threshold",
    )
    p.add_argument(
        "--key",
        type=Path,
        metavar="PEM",
        help="private key that signs it: openssl genpkey -algorithm ed25519",
    )


def run_report(options: argparse.Namespace) -> None:
    from anomaly.quality.audit import write_audit

    print(
        write_audit(options.detector, options.audit, review=options.review, key=options.key).text()
    )
