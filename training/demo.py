"""`anomaly demo`: the main job from good images to scored images, on real photographs, with the
lines a user decides by.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from anomaly.errors import DatasetError
from anomaly.imaging.decode import decode
from anomaly.inputs.dataset import Record, labelled_test, normal_training, read_dataset
from anomaly.quality.evaluate import judge_labelled
from anomaly.reporting.detector import card_text
from anomaly.reporting.evaluation import every_image_text, interval_text, rate_text, realised_text
from anomaly.reporting.evaluation_report import build_report
from anomaly.reporting.lines import LABEL_WIDTH, lines_of
from anomaly.reporting.page import write_report
from anomaly.scorer import Scorer
from anomaly.scoring.batch import score_table
from anomaly.scoring.evaluation import Judged
from anomaly.statistics.resampling import NORMAL
from training.options import TrainOptions
from training.pipeline import train

ATTRIBUTION = (
    "ELPV solar cells, S. Deitsch et al., CC BY-NC-SA 4.0; non-commercial: do not ship this "
    "detector"
)


def demo(data: str, out: Path) -> None:
    """Runs the demo into ``out`` and prints its result in the last fifteen lines."""
    start = time.perf_counter()
    folder = out / time.strftime("%Y%m%d-%H%M%S")
    manifest, defect, attribution = prepare(data, folder)
    print(
        f"1/4  train, set the threshold, export: anomaly train {manifest} --out {folder / 'run'}",
        file=sys.stderr,
    )
    command = f"anomaly train {manifest} --out {folder / 'run'}"
    card = train(
        TrainOptions(images=manifest, out=folder / "run", command=command),
        lambda line: print(line, file=sys.stderr),
    )
    if card is None:
        return
    scorer = Scorer(folder / "run")
    records = labelled_test(read_dataset(manifest))
    print("2/4  judge the test images", file=sys.stderr)
    judged = judge_labelled(scorer, records)
    print("3/4  report", file=sys.stderr)
    report = build_report(judged, manifest, notes=[attribution] if attribution else [])
    write_report(folder / "report.html", report)
    print("4/4  score table of the test images", file=sys.stderr)
    good_or_defect = [r for r in records if r.label in (NORMAL, defect)]
    table = folder / "scores.csv"
    one_thread = Scorer(folder / "run", threads=1)  # for each of the threads that score
    summary = score_table(one_thread, [r.path for r in records], table)
    baseline = pixel_pca(normal_training(read_dataset(manifest)), good_or_defect)
    print(
        "\n".join(
            last_lines(judged, defect, baseline, folder, summary.images_per_second, attribution)
        )
    )
    print(f"all done in {time.perf_counter() - start:.0f} s", file=sys.stderr)


def prepare(
    data: str, folder: Path, train: int = 400, good: int = 150, per_defect: int = 25
) -> tuple[Path, str, str]:
    """Returns the images (a folder or a manifest), the class that is surely defective, and the
    attribution.

    ``train``, ``good`` and ``per_defect`` say how many synthetic images are written.
    """
    try:
        if data == "synthetic":
            from data.synthetic import write_dataset

            write_dataset(folder / "images", train=train, good=good, per_defect=per_defect)
            return folder / "images", "", ""
        from data.elpv import write_manifest
    except ImportError as error:
        raise DatasetError(
            "the demo's images are made by the folder data/ of the repository, which is not in the "
            "installed package: run it in a checkout (make demo)"
        ) from error
    print(ATTRIBUTION, file=sys.stderr)
    return write_manifest(folder), "defective", ATTRIBUTION


def pixel_pca(
    train: list[Record], test: list[Record], side: int = 32, components: int = 64
) -> float:
    """Returns the AUROC of the plainest model, PCA of grey pixels at 32 x 32 (the mean squared
    residual is its score).
    """
    from PIL import Image
    from sklearn.decomposition import PCA
    from sklearn.metrics import roc_auc_score

    def pixels(records: list[Record]) -> np.ndarray:
        grey = (
            Image.fromarray(decode(r.path).pixels)
            .convert("L")
            .resize((side, side), Image.Resampling.BOX)
            for r in records
        )
        return np.stack([np.asarray(image, np.float32).ravel() / 255 for image in grey])

    pca = PCA(min(components, len(train) - 1), random_state=0).fit(pixels(train))
    # One image at a time: in a product of matrices the last bit of a row depends on its place, so
    # equal images would not tie.
    residual = [
        float(((x - pca.inverse_transform(pca.transform(x))) ** 2).mean())
        for x in pixels(test)[:, None]
    ]
    return float(roc_auc_score([r.label != NORMAL for r in test], residual))


def last_lines(
    judged: Judged, defect: str, baseline: float, folder: Path, speed: float, attribution: str
) -> list[str]:
    """Returns the lines by which a user decides: at most fifteen."""
    e, card = judged.evaluation, judged.scorer.card
    calibration, alarms = card.calibration, e.false_alarms
    assert calibration is not None and alarms is not None
    sure = e.per_class[defect] if defect else None
    weak = {name: figures for name, figures in e.per_class.items() if name != defect}
    ranking, recall = (sure.image_auroc, sure.recall) if sure else (e.image_auroc, e.recall)
    rows: list[tuple[str, str]] = [
        (
            "ranking",
            f"AUROC {interval_text(ranking)}, good against {defect or 'defects'}; "
            f"pixel PCA {baseline:.3f}",
        ),
        *(
            [
                (
                    "",
                    (
                        f"AUROC {interval_text(e.image_auroc)}, good against all "
                        f"{e.n_anomalous} defects, weak ones too"
                    ),
                )
            ]
            if sure
            else []
        ),
        ("good images flagged", realised_text(alarms.flagged, calibration)),
        (
            f"{defect or 'defects'} flagged",
            rate_text(recall) + ("" if sure else every_image_text(e.recall_images)),
        ),
        (
            "weak defects flagged" if defect else "by kind",
            "; ".join(
                f"{name} {f.recall.flagged} of {f.recall.n}" for name, f in weak.items() if f.recall
            ),
        ),
        *guarantee_rows(judged, folder / "run"),
        (
            "torch against ONNX",
            (
                f"scores agree to {card.training.parity:.1e} of (threshold - typical); at most "
                "1e-3 allowed"
            ),
        ),
        (
            "speed",
            (
                f"{1000 / speed:.1f} ms an image with decoding ({speed:.0f} images/s) on "
                f"{judged.scorer.device}"
            ),
        ),
        ("detector", str(folder / "run" / "detector.onnx")),
        ("scores and report", f"{folder / 'scores.csv'}   {folder / 'report.html'}"),
    ]
    anomaly = Path(sys.executable).with_name("anomaly")
    rows += [("data", attribution)] if attribution else []
    rows += [
        ("next", f"{anomaly} show {folder / 'run'}"),
        ("", f"{anomaly} score {folder / 'run'} YOUR_IMAGES --out scores.csv"),
        ("", f"{anomaly} train YOUR_GOOD_IMAGES --out run"),
    ]
    return lines_of(rows)


def guarantee_rows(judged: Judged, run: Path) -> list[tuple[str, str]]:
    """Returns label and text of the threshold and what it guarantees."""
    calibration = judged.scorer.card.calibration
    told = card_text(judged.scorer.card, str(run)).splitlines()
    if calibration is None or calibration.too_few:
        return [("threshold and guarantee", told[0])]
    return [
        (told[0][:LABEL_WIDTH].rstrip(), told[0][LABEL_WIDTH:]),
        ("guarantee", told[1][LABEL_WIDTH:]),
    ]
