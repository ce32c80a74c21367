"""What a folder's name or a label says of its images."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.inputs.labels import BAD_WORDS, GOOD_WORDS, is_bad_alone, is_named, kind_of, sides_of
from anomaly.training_options import given_names

GOOD = """
good Good GOOD OK ok Okay pass Passed normal nominal conforming accept accepted i.O. io iO gut bon
bonne buono bueno bom goed dobry dobrý хороший ХОРОШИЕ 良品 合格 正常 OK品 양품 정상 0_good 01-OK
good_parts OK_images OKImages goodParts \uff2f\uff2b OK1 ok_front cam1_OK good.2024-01-01 良品画像
정상이미지 no_defect defect-free ohne_Fehler fehlerfrei 異常なし without_cracks
"""
BAD = """
bad BAD NG N.G. n.i.O. niO nok NOK fail failed reject rejected anomaly anomalous
abnormal defect defective faulty schlecht Fehler Ausschuss mauvais difettoso malo
defecto 不良 不良品 異常 异常 缺陷 불량 брак defects_2 def_front not_good not-ok nicht_i.O.
non_conforming 1_NG NG品 外観不良 n.i.O._Kratzer bad_weld 不良品画像 不合格 비정상 불량이미지 défaut
Défectueux unacceptable
"""
NOT_GOOD = (
    "ikke ok|inte ok|ej ok|ei ok|nem jó|nu ok|nie ok|niet goed|nicht in Ordnung|ikke godkjent|pas "
    "bon|non conforme|no ok|"
    "iyi değil|tidak "
    "baik|未合格|不良好|非正常|不好|不OK|正常ではない|unOK|UnOk|ungut|incorrect|notok_2|"
    "zły|dårlig|feil|hibás|selejt|NGs|NOKs|bads|"
    "Fehlerteile|abnormality|outlier|KO|K.O.|B-Ware|2. Wahl|second "
    "quality|rework|Nacharbeit|Verdacht|suspect|劣|劣品|不是良品"
)
DOUBT = (
    "positive|negativ|Positiv|negativo|positive "
    "samples|阳性|阴性|陽性|正样本|负样本|正例|检出|未检出|양성|nicht ganz ok|"
    "not really good|ok_not|good_no"
)
SEARCHED = (
    "cam1|2024-05-01|Los_7|Schicht "
    "2|linea|norte|nota|okular|badge|passau|normandy|nook|compass|maus|2nd shift|pos1|pos_2|"
    "cam A|linea B|indoor|notebook|impasse|kontrolle|unit 3|tokyo"
)
NEITHER = """
goodyear okular bookcase passau camera1 lot_2 2024-01-05 monday okra badge nokia compass defense
normandy book station iodine ongoing abc ok_ng good_and_bad カメラ1 月曜日 서울 камера 工场
"""


@pytest.mark.parametrize(
    ("words", "kind"),
    [(GOOD, "good"), (BAD, "bad"), (NEITHER, None)],
    ids=["good", "bad", "neither"],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_words_for_good_and_bad_in_any_spelling(words, kind, form):
    found = {name: kind_of(unicodedata.normalize(form, name)) for name in words.split()}
    assert found == dict.fromkeys(words.split(), kind)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (NOT_GOOD, "bad"),
        (DOUBT, "doubt"),
        (SEARCHED, None),
        ("P|F|class A|Class_B|klasse 1", "unclear"),
    ],
)
def test_negations_doubts_and_ordinary_names(words, kind):
    names = [
        form for name in words.split("|") for form in (name, unicodedata.normalize("NFD", name))
    ]
    assert {name: kind_of(name) for name in names} == dict.fromkeys(names, kind)


@pytest.mark.parametrize(
    ("names", "good", "doubt"),
    [
        ("good_weld bad_weld", "good_weld", ""),
        ("OK NG", "OK", ""),
        ("almost_good scratch", "", "almost_good"),
        ("ok_fraglich NG", "", "ok_fraglich"),
        ("good good_weld scratch", "good", "good_weld"),
        ("normal_light NG", "", "normal_light"),
        ("P F", "", "P F"),
        ("positive negative", "", "positive negative"),
        ("检出 cam1", "", "检出"),
        ("NG negative", "", "negative"),
        ("cam1 cam2", "", ""),
    ],
)
def test_names_beside_each_other(names, good, doubt):
    found = sides_of({name: kind_of(name) for name in names.split()})
    assert (" ".join(found.good), " ".join(sorted(found.doubt))) == (
        good,
        " ".join(sorted(doubt.split())),
    )


def test_no_word_says_both():
    assert set() == GOOD_WORDS & BAD_WORDS


@given(
    st.sampled_from(sorted(GOOD_WORDS | BAD_WORDS)),
    st.sampled_from(["{}", "0_{}", "{} 3", "01-{}", " {}", "[{}]"]),
)
def test_every_word_says_the_same_in_capitals_and_with_numbers(word, frame):
    kind = "good" if word in GOOD_WORDS else "bad"
    assert (kind_of(frame.format(word)), kind_of(frame.format(word.upper()))) == (kind, kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("good_weld", "loose"),
        ("normal_light", "weak"),
        ("io_board", "weak"),
        ("deep_scratch", "type"),
        ("Kratzer", "type"),
        ("0", "unclear"),
        ("1.0", "unclear"),
        ("True", "unclear"),
        ("no", "unclear"),
        ("positive", "doubt"),
    ],
)
def test_names_that_say_less(name, kind):
    assert kind_of(name) == kind


def test_a_name_that_is_bad_and_nothing_else():
    assert [
        is_bad_alone(name) for name in ("NG", "03_defects", "bad images", "bad_weld", "good", "x")
    ] == [True] * 3 + [False] * 3


def test_names_given_on_the_command_line():
    assert given_names(["OK, 良品", "0", ""]) == ("OK", "良品", "0")
    assert [
        is_named("0.0", ["0"]),
        is_named("ok", ["OK"]),
        is_named("okay", ["OK"]),
        is_named("01", ["1"]),
    ] == [
        True,
        True,
        False,
        True,
    ]
