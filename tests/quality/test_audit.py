"""The auditor's archive: what is in it, and that every kind of tampering is named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from anomaly.detector.file import read_card
from anomaly.errors import AnomalyError, DetectorError
from anomaly.quality.audit import CHECKS, MANIFEST, MAX_MEMBERS, SIGNATURE, write_audit
from anomaly.quality.audit_check import verify_audit
from anomaly.reporting.audit import Audit, audit_text, verified_text
from anomaly.review import Store
from anomaly.scorer import Scorer
from anomaly.scoring.batch import score_table
from tests.commands.test_main import Shell
from tests.detector.test_signature import write_keys
from tests.review.test_chain import past_the_triggers
from tests.review.test_review import fill, give_verdict, row

Members = dict[str, bytes]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def own_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of the run as it was trained, which these tests may add checks to."""
    unchecked = shutil.ignore_patterns(CHECKS)  # by which other tests looked at it
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("audited") / "run", ignore=unchecked))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), "key", ed25519.Ed25519PrivateKey.generate())


@pytest.fixture(scope="module")
def signed(
    own_run: Path, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("audit") / "audit.zip"
    assert write_audit(own_run, out, key=keys[0]).signed
    return out


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, content: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_it_holds_what_was_trained_checked_and_said(
    own_run: Path, parts: Path, tmp_path: Path, shell: Shell
) -> None:
    database, out = tmp_path / "review.db", tmp_path / "audit.zip"
    good = sorted((parts / "test" / "good").iterdir())
    score_table(Scorer(own_run, device="cpu"), good, tmp_path / "t.csv")
    with Store(database) as store:
        run, _ = store.import_table(tmp_path / "t.csv", card=read_card(own_run), by="ann")
        finding = store.findings()[0].id
        event = store.record("ann", finding, "anomalous", key="1")
        store.undo("ann", key="2", event=event.id)
        store.set_threshold(run.id, 9.5, by="ann", key="3")
    assert shell("check", own_run, parts / "test" / "good").status == 0
    assert shell("verify", own_run).status == 0
    assert shell("evaluate", own_run, parts).status == 0
    done = shell("report", own_run, "--audit", out, "--review", database)
    assert done.status == 0 and "anomaly verify --audit" in done.out
    held, card = members(out), read_card(own_run)
    manifest = json.loads(held[MANIFEST])
    assert set(held) == {MANIFEST, *manifest["files"]}
    assert {
        "run/detector.onnx",
        "run/images.csv",
        "run/report.html",
        f"run/{CHECKS}",
        "card.json",
    } < set(held)
    assert {
        name: hashlib.sha256(data).hexdigest() for name, data in held.items() if name != MANIFEST
    } == {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert (
        manifest["detector"] == card.identity
        and manifest["trained"]["images"] == card.training.images == 120
    )
    assert manifest["trained"]["by"] and manifest["guarantee"]["k"] == card.calibration.k
    assert set(manifest["not_included"]) == {"checkpoint.safetensors", "explain.onnx"}
    checks = [json.loads(line) for line in held[f"run/{CHECKS}"].splitlines()]
    assert [check["command"].split()[1] for check in checks] == ["check", "verify", "evaluate"]
    assert (
        checks[0]["found"]["advice"] in ("keep", "recalibrate", "retrain")
        and checks[0]["detector"] == card.identity
    )
    log = [json.loads(line) for line in held["review/log.jsonl"].splitlines()]
    assert [entry["action"] for entry in log] == ["import", "anomalous", "undo", "threshold"]
    assert log[1]["inspector"] == "ann" and log[3]["threshold"] == 9.5
    text = held["summary.txt"].decode()
    assert all(
        part in text
        for part in ("1 threshold", "anomaly check", "Lowest guaranteed rate", "120 good images")
    )
    verified = shell("verify", "--audit", out)
    assert verified.status == 0 and "not signed" in verified.out and card.identity in verified.out


def test_a_foreign_detectors_verdicts_stay_out(
    own_run: Path, pixel_run: Path, parts: Path, tmp_path: Path
) -> None:
    score_table(
        Scorer(pixel_run, device="cpu"),
        sorted((parts / "test" / "good").iterdir()),
        tmp_path / "t.csv",
    )
    with Store(tmp_path / "review.db") as store:
        store.import_table(tmp_path / "t.csv", by="ann")
        store.record("ann", store.findings()[0].id, "normal", key="1")
    write_audit(own_run, tmp_path / "a.zip", review=str(tmp_path / "review.db"))
    assert members(tmp_path / "a.zip")["review/log.jsonl"] == b""


def test_a_review_log_is_compared_with_the_one_of_the_archive(
    own_run: Path, keys: tuple[Path, Path], tmp_path: Path, shell: Shell
) -> None:
    """Rewritten before the archive was made: not whole. After it, even chained anew: the database
    is not the archive's.
    """
    database, out = tmp_path / "review.db", tmp_path / "a.zip"
    with Store(database) as store:
        fill(store, tmp_path, [row(0, 0.5)])
        give_verdict(store, 1, "anomalous")
    shutil.copy(database, tmp_path / "before.db")
    assert (
        "2 events, each as it was written"
        in shell("report", own_run, "--audit", out, "--review", database, "--key", keys[0]).out
    )
    with Store(database) as store:
        give_verdict(store, 1, "normal", inspector="bob")
    said = shell("verify", "--audit", out, "--key", keys[1], "--review", database)
    assert said.status == 0 and "2 events of the archive are in" in said.out and "of 3" in said.out
    past_the_triggers("UPDATE events SET action = 'normal' WHERE id = 2")(database)
    assert "event 2 (" in shell.refuses("verify", "--audit", out, "--review", database)
    shell("report", own_run, "--audit", tmp_path / "later.zip", "--review", database)
    assert "rewritten before the archive was made: event 2 (" in shell.refuses(
        "verify", "--audit", tmp_path / "later.zip"
    )
    past_the_triggers("DELETE FROM events WHERE id > 1")(tmp_path / "before.db")
    assert "1 events found, 2 expected" in shell.refuses(
        "verify", "--audit", out, "--review", tmp_path / "before.db"
    )
    write_audit(own_run, tmp_path / "no.zip")
    assert "no review log in it" in shell.refuses(
        "verify", "--audit", tmp_path / "no.zip", "--review", database
    )
    assert "--review without --audit" in shell.refuses("verify", own_run, "--review", database)


@pytest.mark.parametrize(
    "name",
    ["report.html", CHECKS, "train.jsonl", "images.csv", "other.onnx", "checkpoint.safetensors"],
)
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_files_of_the_run_itself_go_into_the_archive(
    own_run: Path, tmp_path: Path, shell: Shell, name: str, kind: str
) -> None:
    run, secret = Path(shutil.copytree(own_run, tmp_path / "run")), tmp_path / "secret"
    secret.write_text("{}")
    (run / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(run / name)
    elif kind == "folder":
        (run / name).mkdir()
    else:
        (run / name).symlink_to(secret if kind == "link" else tmp_path / "none")
    if name == "images.csv" and kind != "link":
        shutil.copy(
            own_run / "images.csv", tmp_path
        )  # without it the folder is no run folder, and nothing but the detector goes in
        return
    said = shell.refuses("report", run, "--audit", tmp_path / "a.zip")
    assert name in said and not (tmp_path / "a.zip").exists()


def test_a_check_is_not_noted_through_a_link(
    own_run: Path, parts: Path, tmp_path: Path, shell: Shell
) -> None:
    run, other = Path(shutil.copytree(own_run, tmp_path / "run")), tmp_path / "other"
    other.write_text("mine")
    (run / CHECKS).unlink(missing_ok=True)
    (run / CHECKS).symlink_to(other)
    assert "a link found" in shell("verify", run).err
    assert other.read_text() == "mine"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "1",
        "{}",
        '{"at": 1, "by": "x", "command": "y"}',
        "\udcff",
        "[" * 100_000,
        '{"at": "x", "by": "y"}',
    ],
)
def test_a_broken_line_of_checks_is_one_line(
    own_run: Path, tmp_path: Path, shell: Shell, line: str
) -> None:
    run = Path(shutil.copytree(own_run, tmp_path / "run"))
    good = '{"at": "x", "by": "y", "command": "z"}'
    (run / CHECKS).write_bytes(f"{good}\n{line}\n".encode("utf-8", "surrogateescape"))
    assert f"{CHECKS}, line 2: " in shell.refuses("report", run, "--audit", tmp_path / "a.zip")


def test_an_archive_of_very_many_files_is_refused_at_once(
    signed: Path, tmp_path: Path, shell: Shell
) -> None:
    """40,000 took 105 seconds, and a manifest of as many names as long: the number is looked at
    before the names are read.
    """
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(MAX_MEMBERS + 1):
            archive.writestr(f"run/{number}", b"")
    assert f"more than {MAX_MEMBERS:,} files" in shell.refuses(
        "verify", "--audit", tmp_path / "many.zip"
    )
    held = members(signed)
    manifest = json.loads(held[MANIFEST])
    manifest["files"] |= {
        f"run/{number}": {"sha256": "0", "bytes": 0} for number in range(MAX_MEMBERS)
    }
    assert "manifest.json is damaged" in shell.refuses(
        "verify",
        "--audit",
        written(tmp_path / "a.zip", {**held, MANIFEST: json.dumps(manifest).encode()}),
    )
    some = {f"new/{number}": b"" for number in range(5_000)}
    said = shell.refuses("verify", "--audit", written(tmp_path / "b.zip", {**held, **some}))
    assert "'new/0' was added" in said and said.endswith("; and 4,980 more")
    huge = shell.refuses(
        "verify", "--audit", written(tmp_path / "c.zip", {**held, SIGNATURE: b"\0" * 5_000_000})
    )
    assert "manifest.sig is too large" in huge


def test_a_detector_without_its_run_folder_brings_only_itself(
    own_run: Path, tmp_path: Path
) -> None:
    shutil.copy(own_run / "detector.onnx", tmp_path / "d.onnx")
    (tmp_path / "secret.csv").write_text("nobody's business")
    (tmp_path / "other.onnx").write_bytes(b"another's")
    write_audit(tmp_path / "d.onnx", tmp_path / "a.zip")
    assert set(members(tmp_path / "a.zip")) == {"run/d.onnx", "summary.txt", "card.json", MANIFEST}
    verify_audit(tmp_path / "a.zip")


def changed(name: str, data: bytes) -> Callable[[Members], Members]:
    return lambda held: {**held, name: data}


def flipped(name: str) -> Callable[[Members], Members]:
    return lambda held: {
        **held,
        name: held[name][:-9] + bytes([held[name][-9] ^ 1]) + held[name][-8:],
    }


def without(name: str) -> Callable[[Members], Members]:
    return lambda held: {key: data for key, data in held.items() if key != name}


def renamed(held: Members) -> Members:
    return {
        ("run/detector2.onnx" if name == "run/detector.onnx" else name): data
        for name, data in held.items()
    }


def forged(held: Members) -> Members:
    """Changes a file and its entry in the manifest, as somebody would who knows the format."""
    manifest, data = json.loads(held[MANIFEST]), held["run/images.csv"] + b"x"
    manifest["files"]["run/images.csv"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    return {**held, "run/images.csv": data, MANIFEST: json.dumps(manifest).encode()}


def another_detector(held: Members) -> Members:
    manifest = json.loads(held[MANIFEST])
    return {
        **held,
        MANIFEST: json.dumps({**manifest, "detector": "run@1 sha256:" + 64 * "0"}).encode(),
    }


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (flipped("run/detector.onnx"), "'run/detector.onnx' was changed"),
        (flipped("run/images.csv"), "'run/images.csv' was changed"),
        (changed("card.json", b"{}"), "'card.json' was changed"),
        (without("run/report.html"), "'run/report.html' is missing"),
        (changed("run/new.csv", b"x"), "'run/new.csv' was added"),
        (changed("../../outside", b"x"), "'../../outside' was added"),
        (renamed, "'run/detector2.onnx' was added; 'run/detector.onnx' is missing"),
        (without(MANIFEST), "manifest.json is missing"),
        (changed(MANIFEST, b"[]"), "lists no files"),
        (changed(MANIFEST, b"{"), "not an audit archive, or a damaged one"),
        (changed(MANIFEST, b'{"format": 99, "files": {}}'), "update this program"),
        (
            changed(MANIFEST, b'{"format": 1, "files": {"card.json": 1}}'),
            "not an audit archive, or a damaged one",
        ),
        (another_detector, "the detector of digest 0000000000000000 is not among its files"),
    ],
)
def test_whatever_was_changed_added_or_removed_is_named(
    signed: Path, tmp_path: Path, shell: Shell, tamper: Callable[[Members], Members], said: str
) -> None:
    assert said in shell.refuses(
        "verify", "--audit", written(tmp_path / "a.zip", tamper(members(signed)))
    )


def test_a_forged_manifest_is_found_by_the_key_alone(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    assert f"signed with the key of {keys[1]}" in verified_text(verify_audit(signed, keys[1]))
    forgery = written(tmp_path / "forged.zip", forged(members(signed)))
    assert "--key PUB checks by whom" in verified_text(verify_audit(forgery))
    with pytest.raises(
        AnomalyError, match="a signature of another key or of another manifest found"
    ):
        verify_audit(forgery, keys[1])
    with pytest.raises(AnomalyError, match="no signature found"):
        verify_audit(written(tmp_path / "plain.zip", without(SIGNATURE)(members(signed))), keys[1])
    other = write_keys(tmp_path, "other", ed25519.Ed25519PrivateKey.generate())[1]
    with pytest.raises(AnomalyError, match="a signature of another key"):
        verify_audit(signed, other)
    with pytest.raises(DetectorError, match="cannot be read"):
        verify_audit(signed, tmp_path / "none.pub")


def test_a_changed_byte_anywhere_in_the_file_is_found(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """In the files' bytes, that is: times and such of the zip itself tell nothing of them."""
    data, path = signed.read_bytes(), tmp_path / "a.zip"
    whole = members(signed)
    for position in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            verify_audit(path, keys[1])
        except AnomalyError:
            continue
        assert members(path) == whole, f"byte {position}"


@pytest.mark.parametrize(
    "mend", [lambda d: d[:-30], lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"front" + d]
)
def test_a_file_cut_off_or_added_to_is_not_whole(
    signed: Path, tmp_path: Path, mend: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(mend(signed.read_bytes()))
    with pytest.raises(
        AnomalyError, match=r"not an audit archive, or a damaged one|bytes that belong to no file"
    ):
        verify_audit(path)


def test_one_name_twice_and_a_comment_are_named(signed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(signed, tmp_path / "a.zip"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("card.json", b"{}")
        archive.comment = b"hello"
    with pytest.raises(
        AnomalyError, match=r"'card.json' is there 2 times; .*bytes that belong to no file"
    ):
        verify_audit(path)


def test_what_cannot_be_written_is_said_before_the_work(
    own_run: Path, tmp_path: Path, shell: Shell
) -> None:
    (tmp_path / "there.zip").write_bytes(b"")
    assert "stays as it is" in shell.refuses("report", own_run, "--audit", tmp_path / "there.zip")
    assert "a .zip to write expected" in shell.refuses(
        "report", own_run, "--audit", tmp_path / "a.tar"
    )
    assert "no such folder" in shell.refuses(
        "report", own_run, "--audit", tmp_path / "none" / "a.zip"
    )
    assert "a private Ed25519 key" in shell.refuses(
        "report", own_run, "--audit", tmp_path / "a.zip", "--key", own_run / "images.csv"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["there.zip"]
    assert "one of them expected" in shell.refuses(
        "verify", own_run, "--audit", tmp_path / "there.zip"
    )
    assert "give RUN, or --audit" in shell.refuses("verify")


def test_the_text_says_how_to_verify(tmp_path: Path) -> None:
    assert (
        audit_text(Audit(tmp_path / "a.zip", 3, "ab", True))
        .splitlines()[-1]
        .endswith("a.zip --key PUB")
    )
