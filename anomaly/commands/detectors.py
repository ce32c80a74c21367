"""The commands that look at a detector file: `show`, `sign`, `bench`, `doctor`, `sample`,
`reconstruct`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import (
    answer,
    check_folders,
    command,
    import_training,
    number,
    say,
)
from anomaly.errors import NOT_ALL_JUDGED, AnomalyError


# --- bench ----------------------------------------------------------------------------------------
def add_bench(commands: Any) -> None:
    p = command(
        commands,
        "bench",
        run_bench,
        "say how fast a detector scores images here, and what bounds it",
        "anomaly bench run photos/new",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGES",
        help="as for score; up to 64 of the first 1,000 are used",
    )
    p.add_argument(
        "--seconds", type=number(1), default=30, metavar="N", help="of measuring throughput (30)"
    )
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures (- for standard output)"
    )


def run_bench(options: argparse.Namespace) -> None:
    from anomaly.inputs.sources import list_sources
    from anomaly.quality.bench import bench

    check_folders(options.json)
    found = bench(
        options.detector,
        list_sources(options.inputs),
        device=options.device,
        seconds=options.seconds,
    )
    answer(found.to_json(), found.text(), options.json)


# --- show, verify, doctor -------------------------------------------------------------------------
def add_show(commands: Any) -> None:
    p = command(
        commands,
        "show",
        run_show,
        "say what a detector is and what it guarantees",
        "anomaly show run",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--json", action="store_true", help="print the whole card")


def run_show(options: argparse.Namespace) -> None:
    from anomaly.detector.file import read_card
    from anomaly.imaging.mask import mask_said
    from anomaly.reporting.wording import card_text, guard_text, more_text

    card = read_card(options.detector)
    if options.json:
        print(json.dumps({**card.to_json(), "digest": card.digest}, indent=2))
        return
    training = card.training
    sets = training.get("sets", {})
    chosen = ", ".join(
        f"{name} {auroc:.3f}" for name, auroc in (training.get("choice") or {}).items()
    )
    rows = [
        ("detector", card.identity),
        (
            "model",
            f"{card.model} on {card.space}, {card.size} x {card.size} pixels; score: {card.score}",
        ),
        (
            "trained",
            (
                f"{training.get('created')} on {training.get('images')} good images, "
                f"{training.get('groups')} groups: "
            )
            + ", ".join(f"{count} {name}" for name, count in sets.items()),
        ),
        ("space chosen", chosen and f"{card.space}; AUROC on synthetic defects: {chosen}"),
        ("mask", mask_said(training)),
        ("input guard", guard_text(training.get("guard"))),
        ("command", training.get("command")),
        ("licences", "; ".join(f"{what}: {licence}" for what, licence in card.licences.items())),
        ("parent", card.parent),
    ]
    rows += [("warning", line) for line in training.get("warnings", [])]
    lines = [f"{label:<24}{text}" for label, text in rows if text] + card_text(
        card, str(options.detector)
    ).splitlines()
    lines += more_text(card)
    for line in lines:  # a card from elsewhere may hold what moves a terminal's cursor
        print("".join(char if char.isprintable() else "?" for char in line))


def add_sign(commands: Any) -> None:
    p = command(
        commands,
        "sign",
        run_sign,
        "sign a detector, so that others can tell it is yours",
        "anomaly sign run --key key.pem",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="PEM",
        help="private key: openssl genpkey -algorithm ed25519",
    )


def run_sign(options: argparse.Namespace) -> None:
    from anomaly.detector.signature import sign

    print(
        f"written                 {sign(options.detector, options.key)}   keep it beside the "
        "detector"
    )


def add_doctor(commands: Any) -> None:
    p = command(
        commands,
        "doctor",
        run_doctor,
        "say what is installed and what really works here",
        "anomaly doctor",
    )
    p.add_argument("--json", action="store_true")


def run_doctor(options: argparse.Namespace) -> int:
    from anomaly.quality.doctor import examine

    findings = examine()
    if options.json:
        print(
            json.dumps([{"what": f.what, "found": f.found, "ok": f.ok} for f in findings], indent=2)
        )
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else '-- '} {finding.what:<28}{finding.found}")
    return 0 if all(finding.ok for finding in findings if finding.needed) else 1


# --- sample, reconstruct, demo --------------------------------------------------------------------
def add_sample(commands: Any) -> None:
    p = command(
        commands,
        "sample",
        run_sample,
        "draw new images from a generative model",
        "anomaly sample run --out samples.png",
    )
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="PNG")
    p.add_argument("--count", type=number(1), default=16, metavar="N")
    p.add_argument("--seed", type=number(0), default=0, metavar="N")


def run_sample(options: argparse.Namespace) -> None:
    import_training()
    from anomaly.imaging.overlay import grid, save_png
    from training.restore import sample

    check_folders(options.out)
    pictures = sample(options.detector, options.count, options.seed)
    save_png(options.out, grid(pictures, columns=max(1, round(len(pictures) ** 0.5))))
    print(
        f"written                 {options.out}   {len(pictures)} images drawn from the model, "
        "none of them is real"
    )


def add_reconstruct(commands: Any) -> None:
    p = command(
        commands, "reconstruct", run_reconstruct, "show images beside what the model expected",
        "anomaly reconstruct run photos/new --out pairs.png",
    )  # fmt: skip
    p.add_argument("detector", type=Path, metavar="RUN")
    p.add_argument("images", type=Path, help="image, folder or manifest")
    p.add_argument("--out", type=Path, required=True, metavar="PNG")
    p.add_argument("--count", type=number(1), default=8, metavar="N", help="of images at the most")


def run_reconstruct(options: argparse.Namespace) -> int:
    from anomaly.imaging.overlay import save_png
    from anomaly.quality.evaluation_report import reconstructions
    from anomaly.scorer import Scorer

    check_folders(options.out)
    if options.images.is_dir() and Path(os.path.realpath(options.out)).is_relative_to(
        os.path.realpath(options.images)
    ):
        raise AnomalyError(
            f"--out {options.out}: lies among the images, and would be judged as one; choose "
            "another folder"
        )
    picture, shown, errors = reconstructions(
        Scorer(options.detector), options.images, options.count
    )
    for line in errors:
        say(line)
    save_png(options.out, picture)
    print(f"written                 {options.out}   {shown} images: original, expected, heatmap")
    return NOT_ALL_JUDGED if errors else 0
