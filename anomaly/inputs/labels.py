"""What a name says of images: words for good and bad, as people call folders and labels in several
languages.

A name is read word by word: case, accents, widths of characters, numbers, separators and words such
as `images` or `camera` do not matter (`01-OK`, `good_parts`, `n.i.O.`), and a word within another
one does not count (`goodyear`, `okular`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Kind = Literal["good", "loose", "weak", "bad", "type", "unclear", "doubt"]

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
bun buna bune jo megfelelo hibatlan baik bagus saglam uygun godkjent godkjente god gode bra feilfri
fejlfri felfri virheeton poprawny prawidlowy sprawny clean 未检出缺陷 未检出异常 未検出欠陥
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
ngs noks bads nogos ko kos abnormality abnormalities outlier outliers outlying nonnormal subnormal
incorrect imperfect fehlerteil fehlerteile fehlerbild darlig darlige feil feilen fejl fel felaktig
virhe viallinen hiba hibas selejt selejtes hatalar rusak cacat gagal kasseret kassert kasserad
underkand underkjent afvist avvist avvisad defectos anormale bware secondquality rework reworks
reworked reworking nacharbeit nacharbeiten nachgearbeitet nachzuarbeiten retrabajo retravail
rilavorazione suspect suspects suspected suspicious suspekt suspekte verdacht verdachtig verdachtige
verdaechtig questionable doubtful substandard inferior sospechoso sospechosos sospetto poprawka
podejrzany 劣 劣品 劣质 劣質 劣化 次 返工 返修 可疑 疑似 手直し 二级品 二等品 二等 二級品 재작업
의심 подозрительный доработка
"""
_TYPES = """
scratch scratches scratched crack cracks cracked dent dents dented stain stains stained broken
damage damaged damages rust rusty contamination contaminated corrosion corroded burr burrs missing
kratzer riss risse delle dellen beschaedigt beschadigt verschmutzt dirty dreckig schmutzig rayure
rayures fissure fissures graffio graffi crepa crepe rayado aranazo aranazos grieta grietas risco
trinca trincas царапина царапины трещина трещины キズ 傷 割れ クラック 打痕 汚れ 欠け 划痕 裂纹 裂紋
刮痕 스크래치 균열 찍힘
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
# words for good that mean other things in other company: normal light, IO board, pass 2 of a
# scanner
_OTHERWISE = """
io go normal normals normale normales normaux normaal normalny normalne норма pass passed passes
passing nominal conform conforme conformes accept accepts perfect correct correcto correcta correcte
bon bons bom boa bueno buena goods healthy intact apto apta clean bra god gode bun baik jo
"""
_BEFORE = """
no not non none without never nicht kein keine ohne sans pas senza sin sem nao geen niet zonder bez
nie ne нет не без ikke ikkje inte icke ej ei nem nu un tidak bukan nincs utan uden uten 未 不 非 没
沒 無 无 不是 不太 未达 비 미 불
""".split()
_BEHIND = "degil yok".split()  # Turkish says not behind the word
_PREFIXES = "nicht ikke inte icke niet non not un no ne nie nao in im não не".split()
_NOT_HAN = ("ない", "ません", "なし", "아님", "아닌", "않")
_SUFFIX = re.compile(
    r"(teil|teile|teilen|bild|bilder|stuck|stucke|image|images|part|parts|photo|photos)$"
)
_AFTER = "free frei less".split()
_UNCLEAR = (
    "true false yes no y n t f p pos neg ja nein oui non si wahr falsch 有 无 無 是 否 有り 無し "
    "真 假 正 负 負"
).split()
_POLAR = re.compile(
    r"(po[sz]iti[vf]|negati[vf]|pozytywn|negatywn|положительн|отрицательн)[^\W\d_]{0,4}"
    r"|[阳陽阴陰]性|[正负負][样樣]本|[正负負]例|未?[检檢検]出|양성|음성"
)
_GRADES = re.compile(
    r"(class|classe|clase|klasse|klasa|label|grade|category|kategorie|类别?|クラス) "
    r"?([0-9a-f]|i{1,3})"
)
_HAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_HAN}]+|[^\W\d_{_HAN}]+|\d+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SHORT = (
    (r"\bn\W*i\W*o\b", "nio"),
    (r"\bi\W*o\b", "io"),
    (r"\bn\W*o\W?k\b", "nok"),
    (r"\bn\W+g\b", "ng"),
    (r"\bo\W+k\b", "ok"),
    (r"\bk\W+o\b", "ko"),
    (r"\bin\W*ordnung\b", "inordnung"),
    (r"\ba\W+ware\b", "gut"),
    (r"\bb\W*ware\b", "bware"),
    (
        r"\b(2|2nd|ii|second|zweite|seconda|segunda|deuxieme|druga|drugi)\W*"
        r"(wahl|choice|quality|grade|qualitat|qualite|calidad|scelta|choix|gatunek)\b",
        "secondquality",
    ),
)


_WHOLE = str.maketrans(
    {"\u0131": "i", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "æ": "ae", "œ": "oe"}
)  # not decomposed


def folded(text: str) -> str:
    """Returns text as it is compared: without case, accents and widths of characters."""
    wide = unicodedata.normalize("NFKD", text.strip())
    bare = "".join(char for char in wide if unicodedata.category(char) != "Mn")
    return unicodedata.normalize("NFC", bare).casefold().translate(_WHOLE)


def _folded_words(words: str) -> frozenset[str]:
    return frozenset(folded(word) for word in words.split())


GOOD_WORDS, BAD_WORDS, TYPE_WORDS, FILLER, OTHERWISE = map(
    _folded_words, (_GOOD, _BAD, _TYPES, _FILLER, _OTHERWISE)
)
_CJK_GOOD, _CJK_BAD, _CJK_FILLER = (
    sorted((w for w in words if re.match(f"[{_HAN}]", w)), key=len, reverse=True)
    for words in (GOOD_WORDS, BAD_WORDS | TYPE_WORDS, FILLER)
)


def kind_of(name: str) -> Kind | None:
    """Returns what a folder's name or a label says of its images, None where it says nothing.

    ``good``: a word for good and nothing else; ``loose``: such a word among others, ``weak`` if it
    means other things too; ``bad``: a word for bad (also rework, suspect, second quality);
    ``type``: a kind of defect; ``doubt``: a word of which only a person knows what it means here
    (positive, 检出, not quite good); ``unclear``: one of a pair, where its fellow stands beside it
    (0, True, yes, P, class A).
    """
    text = " ".join(folded(name).replace("_", " ").replace("-", " ").split())
    if _number(name) in (0, 1) or text in _UNCLEAR or _GRADES.fullmatch(text):
        return "unclear"
    return _kind(folded(name)) or _kind(folded(_HUMP.sub(" ", name)))


class Sides(NamedTuple):
    """Names that lie beside each other: of good images, of bad ones, those in doubt, and those that
    say nothing.
    """

    good: list[str]
    bad: list[str]
    doubt: list[str]
    unknown: list[str]


def sides_of(kinds: Mapping[str, str | None]) -> Sides:
    """Returns what names beside each other (folders or labels, each with its kind) say together.

    A good word among others is in doubt beside a bad name, unless one has the same other words
    (good_weld, bad_weld), and beside a plain good word. Beside it all that is neither loose nor
    weak names a defect: ``bad`` or ``unknown``.
    """
    plain = [name for name, kind in kinds.items() if kind == "good"]
    bad = [name for name, kind in kinds.items() if kind in ("bad", "type")]
    loose = [name for name, kind in kinds.items() if kind in ("loose", "weak")]
    if plain:
        good, doubt = plain, [name for name in loose if kinds[name] == "loose" or bad]
    else:
        alone = len(loose) == len(kinds)
        good = [name for name in loose if alone or _has_twin(name, bad)]
        doubt = _in_doubt(kinds, bool(bad), [name for name in loose if name not in good])
    said = {*good, *bad, *doubt}
    return Sides(good, bad, doubt, [name for name in kinds if name not in said])


def _in_doubt(kinds: Mapping[str, str | None], bad: bool, loose: list[str]) -> list[str]:
    """Returns the names in doubt where no plain word for good stands beside them."""
    unclear = [name for name, kind in kinds.items() if kind in ("unclear", "doubt")]
    pair = len(unclear) > 1 and len(unclear) == len(kinds)
    found = [name for name in unclear if bad or pair or kinds[name] == "doubt"]
    return found + [name for name in loose if bad or kinds[name] == "loose"]


def _has_twin(name: str, bad: Iterable[str]) -> bool:
    """Returns whether a bad name has the same other words: good_weld beside bad_weld."""
    return any(_others(name) == _others(one) for one in bad)


def _others(name: str) -> frozenset[str]:
    words = _WORD.findall(_shortened(folded(_HUMP.sub(" ", name))))
    return frozenset(word for word in words if _meaning(word) in ("other", "loose", "before"))


def is_bad_alone(name: str) -> bool:
    """Returns whether a name is a word for bad, a kind of defect or one in doubt, with nothing
    beside it but numbers and words such as `images`."""
    text = _shortened(folded(name))
    said = set(_negated([_meaning(word) for word in _WORD.findall(text)])) - {"filler", "number"}
    return text in BAD_WORDS or (bool(said) and said <= {"bad", "type", "doubt"})


def _kind(text: str) -> Kind | None:
    words = _WORD.findall(_shortened(text))
    kind = _together(_negated([_meaning(word) for word in words]))
    only_weak = kind == "loose" and not any(
        _meaning(word) == "good" and word not in OTHERWISE for word in words
    )
    return "weak" if only_weak else kind


def _shortened(text: str) -> str:
    """Returns text with its separators as spaces and words that were parted (i.O., N.G.,
    non-conforming) in one.
    """
    text = text.replace("_", " ")
    joined = re.sub(r"\W", "", text)
    if joined in GOOD_WORDS or joined in BAD_WORDS:
        return joined
    for pattern, word in _SHORT:
        text = re.sub(pattern, word, text)
    return text


def _meaning(word: str) -> str:
    """Returns what one word says: good, bad, type, filler, number, doubt, other; before, behind or
    after: no ..., ...-free.
    """
    for meaning, words in (("good", GOOD_WORDS), ("bad", BAD_WORDS), ("type", TYPE_WORDS)):
        if word in words:
            return meaning
    for meaning, short in (("before", _BEFORE), ("after", _AFTER), ("behind", _BEHIND)):
        if word in short:
            return meaning
    if word.isdigit():
        return "number"
    if _POLAR.fullmatch(word):
        return "doubt"
    if word in FILLER or (len(word) == 1 and word.isascii()):
        return "filler"
    return _within(word) if re.match(f"[{_HAN}]", word) else _compound(word)


def _compound(word: str) -> str:
    """Returns what a word of several parts says: not-good (ungut), of parts (Fehlerteile), or a
    plural of a word for bad.
    """
    stem = _SUFFIX.sub("", word)
    for bare in (stem, stem.removesuffix("s"), stem.removesuffix("er")) if stem != word else ():
        if len(bare) > 1 and bare in GOOD_WORDS | BAD_WORDS:
            return "good" if bare in GOOD_WORDS else "bad"
    if len(word) > 4 and word.endswith("s") and word[:-1] in BAD_WORDS:
        return "bad"
    rests = [word.removeprefix(prefix) for prefix in _PREFIXES if word.startswith(prefix)]
    negated = any(rest in GOOD_WORDS and (len(rest) > 2 or rest == "ok") for rest in rests)
    return "bad" if negated and word not in _NOT_NEGATED else "other"


# words of their own
_NOT_NEGATED = frozenset({"nook", "inok", "imok", "impass", "inpass", "unbra", "nobra"})


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
    if re.search(rf"[未不非没沒無无]是?(?:{'|'.join(_CJK_GOOD)})", word):
        return "bad"
    if any(w in word for w in _CJK_GOOD) and any(w in word for w in _NOT_HAN):
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
        elif found and meaning == "behind" and found[-1] in turned:
            found[-1] = turned[found[-1]]
        elif meaning in ("good", "loose") and "before" in found:
            found.append(_further(found[found.index("before") + 1 :], meaning))
        else:
            found.append(meaning)
    if found[-1:] == ["before"] and set(found) & {"good", "loose"}:
        return ["doubt"]  # ok_not, good_no
    return found


def _further(between: list[str], meaning: str) -> str:
    """Returns what a good word says behind a `not` with others between them (not quite ok); `No. 3`
    is a number.
    """
    if between[0] == "number":
        return meaning
    return "bad" if set(between) == {"filler"} else "doubt"


def _together(meanings: Iterable[str]) -> Kind | None:
    said = set(meanings) - {"filler", "number"}
    good, bad = said & {"good", "loose"}, said & {"bad", "type"}
    if good and bad:
        return None  # both: a folder of everything, or good ones with a scratch
    if bad:
        return "bad" if "bad" in bad else "type"
    if "doubt" in said:
        return (
            "doubt"
            if said <= {"doubt", "before", "other", "good", "loose"} and said != {"doubt", "other"}
            else "unclear"
        )
    if not good:
        return None
    return "good" if said == {"good"} else "loose"


def is_named(name: str, given: Iterable[str]) -> bool:
    """Returns whether a name is one of those given, but for case, accents and the way a number is
    written.
    """
    number = _number(name)
    return any(
        folded(name) == folded(one) or (number is not None and number == _number(one))
        for one in given
    )


def _number(text: str) -> float | None:
    return (
        float(text)
        if re.fullmatch(r"\s*[+-]?\d{1,15}([.,]0*)?\s*", text.replace(",", "."), re.ASCII)
        else None
    )
