"""What a name says of images: words for good and bad, as people call folders and labels in several languages.

A name is read word by word: case, accents, widths of characters, numbers, separators and words such as
`images` or `camera` do not matter (`01-OK`, `good_parts`, `n.i.O.`), and a word within another one does not
count (`goodyear`, `okular`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Kind = Literal["good", "loose", "weak", "bad", "type", "unclear"]

GOOD = "good"
_GOOD = """
good goods ok okay okey oks okays pass passed passes passing normal normals nominal
conforming conform conformant accept accepted acceptable accepts io gut gute gutteil gutteile
inordnung bon bons bonne bonnes conforme conformes buono buona buoni buone bueno buena buenos buenas
bom boa boas goed goede dobry dobra dobre dobrze spravny vyhovuje iyi normale normaal normalny
normalne normales normaux perfect flawless intact healthy undamaged defectless unblemished godkand
godkendt hyva hyvaksytty correct correcto correcta correcte aprobado aprobada aprovado aprovada apto
apta fehlerfrei fehlerlos einwandfrei akzeptiert хороший хорошие хорошая хорошее хорошо годен годная
годные годный норма нормальный нормальные нормально исправный исправные 良品 良 合格 合格品 正常
正常品 良好 好 好品 好的 正品 異常なし 異常無し 异常无 无异常 無異常 不良なし 欠陥なし 无缺陷 無缺陷
无瑕疵 양품 정상 정상품 합격 합격품 양호 이상없음 결함없음 불량없음
"""
_BAD = """
bad ng nok notok nogo nogood nio nichtok nichtio fail failed fails failing failure failures reject
rejected rejects rejection anomaly anomalies anomalous anomal abnormal abnormals defect defects
defected defective defectives def faulty fault faults flawed flaw flaws nonconforming nonconform
nonconformant nonconformity unacceptable unaccepted unhealthy scrap scrapped schlecht schlechte
schlechtteil schlechtteile fehler fehlerhaft fehlerhafte fehlteil ausschuss kusurlu defekt defekte
mangel maengel mangelhaft anomalie anomalien abweichung mauvais mauvaise mauvaises defaut defauts
defectueux defectueuse rebut rebuts anormal anormaux nonconforme cattivo cattivi cattiva scarto
scarti difetto difetti difettoso difettosi difettosa anomalo anomala anomali anomalia anomalias malo
mala malos malas defecto defectos defectuoso defectuosa defectuosos rechazado rechazada rechazados
mau ruim defeito defeitos defeituoso defeituosa rejeitado rejeitados slecht slechte fout foute
afkeur defecten zly zla zle wada wady wadliwy wadliwe uszkodzony uszkodzone brak braki vadny vadne
zmetek kotu hatali hata dalig defekter плохой плохие плохая плохо брак браки бракованный бракованные
дефект дефекты дефектный дефектные негодный негодные аномалия аномалии ненормальный 不良 不良品
不良部品 異常 異常品 异常 异常品 缺陷 缺陷品 欠陥 欠陥品 不合格 不合格品 不正常 非正常 瑕疵 瑕疵品
次品 废品 廃品 坏 坏品 壞 불량 불량품 비정상 이상 결함 결함품 불합격 불합격품
"""
_TYPES = """
scratch scratches scratched crack cracks cracked dent dents dented stain stains stained broken
damage damaged damages rust rusty contamination contaminated corrosion corroded burr burrs missing
kratzer riss risse delle dellen beschaedigt beschadigt verschmutzt rayure rayures fissure fissures
graffio graffi crepa crepe rayado aranazo aranazos grieta grietas risco trinca trincas царапина
царапины трещина трещины キズ 傷 割れ クラック 打痕 汚れ 欠け 划痕 裂纹 裂紋 刮痕 스크래치 균열 찍힘
"""
_FILLER = """
part parts piece pieces image images img imgs pic pics picture pictures photo photos foto fotos
sample samples item items product products unit units component components set sets data dataset
datasets class classes label labels category folder dir only all raw original originals crop crops
cropped resized aug augmented cam cams camera cameras kamera kameras camara lot lots batch batches
charge los line linie station view views side seite day tag date week month shift schicht run left
right top bottom front back upper lower inner outer links rechts oben unten vorne hinten train test
val validation training testing new old the of one ones bild bilder teil teile stueck stuck aufnahme
aufnahmen imagen imagenes pieza piezas immagini immagine pezzi pezzo peca pecas imagens onderdelen
beelden jpg jpeg png bmp tif tiff gray grey rgb 品 画像 图像 圖像 图片 图 写真 样本 樣本 部品 製品
产品 サンプル 이미지 사진 부품 제품 샘플 фото детали изображения
"""
_OTHERWISE = """
io go normal normals normale normales normaux normaal normalny normalne норма pass passed passes
passing nominal conform conforme conformes accept accepts perfect correct correcto correcta correcte
bon bons bom boa bueno buena goods healthy intact apto apta
"""  # words for good that mean other things in other company: normal light, IO board, pass 2 of a scanner
_BEFORE = "no not non none without nicht kein keine ohne sans pas senza sin sem nao geen niet zonder bez nie нет не без".split()
_AFTER = "free frei less".split()
_UNCLEAR = "0 1 true false yes no y n t f positive negative positives negatives pos neg ja nein oui non si".split()
_HAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_HAN}]+|[^\W\d_{_HAN}]+|\d+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SHORT = (
    (r"\bn\W*i\W*o\b", "nio"),
    (r"\bi\W*o\b", "io"),
    (r"\bn\W*o\W?k\b", "nok"),
    (r"\bn\W+g\b", "ng"),
    (r"\bo\W+k\b", "ok"),
)


def folded(text: str) -> str:
    """Returns text as it is compared: without case, accents and widths of characters."""
    wide = unicodedata.normalize("NFKD", text.strip())
    bare = "".join(char for char in wide if unicodedata.category(char) != "Mn")
    return unicodedata.normalize("NFC", bare).casefold().replace("\u0131", "i")


def _folded_words(words: str) -> frozenset[str]:
    return frozenset(folded(word) for word in words.split())


GOOD_WORDS, BAD_WORDS, TYPE_WORDS, FILLER, OTHERWISE = map(_folded_words, (_GOOD, _BAD, _TYPES, _FILLER, _OTHERWISE))
_CJK_GOOD, _CJK_BAD, _CJK_FILLER = (
    sorted((w for w in words if re.match(f"[{_HAN}]", w)), key=len, reverse=True)
    for words in (GOOD_WORDS, BAD_WORDS | TYPE_WORDS, FILLER)
)


def kind_of(name: str) -> Kind | None:
    """Returns what a folder's name or a label says of its images, None where it says nothing.

    ``good``: a word for good and nothing else; ``loose``: such a word among others, ``weak`` if it means other things too;
    ``bad``: a word for bad; ``type``: a kind of defect; ``unclear``: two-valued (0, True, yes, positive), so that only a
    person knows which one is good.
    """
    if _number(name) in (0, 1) or folded(name) in _UNCLEAR:
        return "unclear"
    return _kind(folded(name)) or _kind(folded(_HUMP.sub(" ", name)))


def is_bad_alone(name: str) -> bool:
    """Returns whether a name is a word for bad, with nothing beside it but numbers and words such as `images`."""
    text = _shortened(folded(name))
    return text in BAD_WORDS or set(_negated([_meaning(word) for word in _WORD.findall(text)])) - {"filler"} == {"bad"}


def _kind(text: str) -> Kind | None:
    words = _WORD.findall(_shortened(text))
    kind = _together(_negated([_meaning(word) for word in words]))
    only_weak = kind == "loose" and not any(_meaning(word) == "good" and word not in OTHERWISE for word in words)
    return "weak" if only_weak else kind


def _shortened(text: str) -> str:
    """Returns text with its separators as spaces and words that were parted (i.O., N.G., non-conforming) in one."""
    text = text.replace("_", " ")
    joined = re.sub(r"\W", "", text)
    if joined in GOOD_WORDS or joined in BAD_WORDS:
        return joined
    for pattern, word in _SHORT:
        text = re.sub(pattern, word, text)
    return text


def _meaning(word: str) -> str:
    """Returns what one word says: good, bad, type, filler, before or after (no ..., ...-free), or nothing known."""
    for meaning, words in (("good", GOOD_WORDS), ("bad", BAD_WORDS), ("type", TYPE_WORDS)):
        if word in words:
            return meaning
    if word in _BEFORE or word in _AFTER:
        return "before" if word in _BEFORE else "after"
    if word.isdigit() or word in FILLER or (len(word) == 1 and word.isascii()):
        return "filler"
    return _within(word) if re.match(f"[{_HAN}]", word) else "other"


def _within(word: str) -> str:
    """Returns what a word says in a script that leaves no space between words."""
    for filler in _CJK_FILLER:
        bare = word.removesuffix(filler).removeprefix(filler)
        if bare != word:
            return _meaning(bare) if bare else "filler"
    good = next((w for w in _CJK_GOOD if len(w) > 1 and w in word), "")
    bad = next((w for w in _CJK_BAD if len(w) > 1 and w in word), "")
    if bad and bad not in good:
        return "bad"
    return "loose" if good else "other"


def _negated(meanings: list[str]) -> list[str]:
    """Returns the meanings with `not good` read as bad and `no defect`, `defect-free` as good."""
    found: list[str] = []
    turned = {"good": "bad", "loose": "bad", "bad": "good", "type": "good"}
    for meaning in meanings:
        if found and found[-1] == "before" and meaning in turned:
            found[-1] = turned[meaning]
        elif found and meaning == "after" and found[-1] in ("bad", "type"):
            found[-1] = "good"
        else:
            found.append(meaning)
    return found


def _together(meanings: Iterable[str]) -> Kind | None:
    said = set(meanings) - {"filler"}
    good, bad = said & {"good", "loose"}, said & {"bad", "type"}
    if good and bad:
        return None  # both: a folder of everything, or good ones with a scratch
    if bad:
        return "bad" if "bad" in bad else "type"
    if not good:
        return None
    return "good" if said == {"good"} else "loose"


def given_names(values: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of ``--good``, which may be repeated and hold several parted by commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def is_named(name: str, given: Iterable[str]) -> bool:
    """Returns whether a name is one of those given, but for case, accents and the way a number is written."""
    number = _number(name)
    return any(folded(name) == folded(one) or (number is not None and number == _number(one)) for one in given)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*[+-]?\d{1,15}([.,]0*)?\s*", text.replace(",", "."), re.ASCII) else None
