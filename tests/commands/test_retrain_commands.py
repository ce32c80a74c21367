"""The command `anomaly mark`; `anomaly retrain` is tested in test_again.py."""

from __future__ import annotations

from pathlib import Path

from anomaly.quality.marks import read_highest, read_marks
from tests.support.runs import Said


def test_images_are_marked_by_the_name_that_is_printed_and_others_are_refused(
    run_of_its_own: Path, said: Said, tmp_path: Path
) -> None:
    _, highest = read_highest(run_of_its_own)
    assert said("mark", run_of_its_own, "--defect", highest[0].name)[0] == 0
    assert f"{highest[0].name}   defect, by " in said("mark", run_of_its_own)[1]
    (tmp_path / "other.png").write_bytes(b"another")
    for stranger in (tmp_path / "other.png", tmp_path / "none.png"):
        status, _, err = said("mark", run_of_its_own, "--good", highest[1].name, stranger)
        assert status == 1 and err.count("\n") == 1
    assert list(read_marks(run_of_its_own)) == [highest[0].sha256]  # all or nothing


def test_one_image_has_one_mark_and_the_list_names_it(run_of_its_own: Path, said: Said) -> None:
    _, highest = read_highest(run_of_its_own)
    name = highest[0].name
    status, _, err = said("mark", run_of_its_own, "--good", name, "--defect", highest[0].path)
    assert (
        status == 1 and "--good and --defect found, one of them expected; nothing was marked" in err
    )
    status, _, err = said("mark", run_of_its_own, "--good", "nowhere.png")
    assert status == 1 and f"such as {name}, or a path of" in err and err.count("\n") == 1
    assert read_marks(run_of_its_own) == {}
    for image in highest:
        assert said("mark", run_of_its_own, "--good", image.name)[0] == 0
    assert set(read_marks(run_of_its_own)) == {image.sha256 for image in highest}


def test_a_listed_name_is_taken_where_it_ends_several_paths(
    run_of_its_own: Path, said: Said
) -> None:
    _, highest = read_highest(run_of_its_own)
    with open(run_of_its_own / "images.csv", "a") as file:
        file.write(f"/other/{highest[0].name},{'0' * 64},fit,x\n")
    assert said("mark", run_of_its_own, "--defect", highest[0].name)[0] == 0
    assert list(read_marks(run_of_its_own)) == [highest[0].sha256]
