"""The command `anomaly verify`: scores are right here, and known bad parts are flagged."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import add_device, add_good, command, say
from anomaly.errors import NOT_ALL_JUDGED, AnomalyError
from anomaly.learning import import_training
from anomaly.reporting.lines import line_of
from anomaly.training_options import given_names


def add_verify(commands: Any) -> None:
    """Adds `verify` to the command line."""
    p = command(
        commands,
        "verify",
        run_verify,
        "check that a detector works correctly on this machine and flags known defects",
        "anomaly verify run --challenge photos/known_bad",
    )
    p.add_argument("detector", type=Path, nargs="?", metavar="RUN")
    p.add_argument(
        "images",
        type=Path,
        nargs="?",
        help="images to compare torch and ONNX on (needs torch)",
    )
    p.add_argument(
        "--challenge",
        type=Path,
        metavar="DIR",
        help="known defects: exit with 1 unless all are flagged",
    )
    add_good(p)
    p.add_argument(
        "--repeat",
        type=Path,
        metavar="DIR",
        help="repeated photographs of the same parts: count changes of the result",
    )
    p.add_argument(
        "--group-by",
        metavar="REGEX",
        help="with --repeat: images with the same match (first group) show one part",
    )
    p.add_argument(
        "--key",
        type=Path,
        metavar="PUB",
        help="public key; the file must be signed with it (anomaly sign)",
    )
    p.add_argument(
        "--audit",
        type=Path,
        metavar="ZIP",
        help="instead: check that an archive of anomaly report is intact",
    )
    p.add_argument(
        "--review",
        metavar="DB",
        help="with --audit: review database to compare with the log in the archive",
    )
    add_device(p)


def run_verify(options: argparse.Namespace) -> int:
    from anomaly.quality.audit import note_check
    from anomaly.scorer import Scorer

    if options.audit:
        return run_verify_audit(options)
    if options.review:
        raise AnomalyError(
            "--review without --audit found, both expected: anomaly review verify looks at a "
            "database alone"
        )
    if not options.detector:
        raise AnomalyError("nothing to verify found: give RUN, or --audit ZIP")
    scorer = Scorer(options.detector, device=options.device, key=options.key)
    if options.key:
        signed = f"right: this very file was signed with the key of {options.key}"
        print(line_of("signature", signed))
    worst = scorer.verify_golden()
    samples = len(scorer.card.golden.get("samples", []))
    right = f"{samples} of {samples} right on {scorer.device}"
    print(line_of("golden samples", f"{right}, within {worst:.2g} of the tolerance"))
    if options.images:
        import_training()
        from training.restore import verify_images

        print(verify_images(options.detector, options.images, scorer.card))
    not_judged, found = 0, {"golden": right}
    if options.repeat:
        from anomaly.quality.challenge import repeat
        from anomaly.reporting.quality import repeat_text

        repeated = repeat(scorer, options.repeat, options.group_by)
        found["repeat"] = repeat_text(repeated)
        print(found["repeat"])
        not_judged += repeated.not_judged
    if options.challenge:
        from anomaly.quality.challenge import challenge
        from anomaly.reporting.quality import challenge_text

        challenged = challenge(scorer, options.challenge, given_names(options.good), say)
        found["challenge"] = challenge_text(challenged)
        print(found["challenge"])
        not_judged += len(challenged.not_judged)
    note_check(options.detector, options.command_line, scorer.card, found)
    if options.challenge and challenged.missed:
        raise AnomalyError(
            f"{len(challenged.missed)} of {challenged.judged} known bad parts were not flagged, "
            "all expected: look; a higher --false-alarm-rate (anomaly calibrate) or more training "
            "images may flag them"
        )
    return NOT_ALL_JUDGED if not_judged else 0


def run_verify_audit(options: argparse.Namespace) -> int:
    """Verifies an archive of `anomaly report`."""
    from anomaly.quality.audit_check import verify_audit
    from anomaly.reporting.audit import verified_text

    if options.detector:
        raise AnomalyError(
            f"{options.detector} and --audit found, one of them expected: an archive is verified "
            "by itself"
        )
    print(verified_text(verify_audit(options.audit, options.key, options.review)))
    return 0
