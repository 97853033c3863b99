"""Which scan a series' description or a node's name speaks of. Pure text; Slicer's own process imports it, too."""

from __future__ import annotations

import re
import unicodedata

AGENTS = (
    "ablavar", "artirem", "bayer gd", "clariscan", "cyclolux", "dotagraf", "dotarem", "dotavision", "elucirem",
    "eovist", "feraheme", "feridex", "gadavist", "gadoterate", "gadopiclenol", "gadopentetate", "gadograf", "gadovist",
    "gadovita", "gadoxetate", "gd bopta", "gd dota", "gd dtpa", "gd hp do3a", "gd eob", "lumentin", "magnegita",
    "magnevist", "magnograf", "magnescope", "multihance", "omniscan", "optimark", "pixxoscan", "primovist", "prohance",
    "resovist", "teslascan", "vasovist", "vueway", "dota", "dtpa", "bopta", "ferumoxytol",
)  # fmt: skip
"""Names of contrast agents for MRI, of brands and substances; "gado..." is one by its beginning."""
CONTRAST_WORDS = (
    # English, German, French, Spanish, Portuguese, Italian
    "contrast", "contrasted", "contr", "contrastmedium", "kontrast", "kontrastmittel", "kontrastm", "kontr", "km",
    "kmgabe", "contraste", "contrasto", "produit de contraste", "pdc", "injecte", "injectee", "injection", "inj",
    "gado", "gadolinium", "gadolinio", "gadolinico", "gd", "gad", "gdl", "mdc", "mezzo di contrasto", "mc", "civ", "ce",
    "cm", "medio de contraste", "contraste iv", "realce", "rehausse", "rehaussement", "kontrastverstarkt", "enhanced",
    "enhancement", "enh", "cemri", "gbca", "ivc", "ivkm", "iny",
    # Dutch, Swedish, Danish, Norwegian, Finnish, Polish, Czech, Hungarian, Romanian, Turkish, Croatian
    "contrastmiddel", "contrastvloeistof", "kontrastmedel", "kontraststof", "kontrastvaeske", "kontrastvatska",
    "tehosteaine", "tehoste", "kontrastem", "kontrastu", "kontrastowy", "srodek kontrastowy", "srodku", "kontrastni",
    "kontrastni latka", "kl", "k.l.", "kontrasztanyag", "kontrasztos", "kontraszt", "substanta de contrast",
    "kontrastli", "kontrast madde", "kontrastno", "kontrastnim",
    # Russian, Ukrainian, Greek, Chinese, Japanese, Korean
    "контраст", "контрастом", "контрастное", "контрастирование", "кв", "ку", "σκιαγραφικο", "增强", "增強", "増強",
    "强化", "造影", "造影後", "조영", "조영증강",
)  # fmt: skip
"""Words and abbreviations for contrast agent or enhancement; accents are left out."""
ALONE_AFTER = (
    "post",
    "postgd",
    "postgad",
    "postkm",
    "postcontrast",
    "postinj",
    "postinjection",
    "postc",
    "pc",
    "p.c.",
    "p. c.",
    "p.i.",
    "kma",
    "kmg",
    "nkm",
    "gabe",
    "nach gabe",
    "jalkeen",
)
"""What says by itself that it is from after the injection."""
WITHOUT_WORDS = (
    "w/o", "wo", "without", "no", "non", "not", "ohne", "o", "sans", "sin", "sem", "senza", "zonder", "geen", "utan",
    "sine", "uden", "uten", "ilman", "bez", "fara", "nelkul", "olmadan", "без", "χωρις", "vor", "before", "pre",
    "avant", "antes", "prima", "voor", "fore", "for", "przed", "pred", "inainte", "once", "до", "minus", "prae",
)  # fmt: skip
"""What says that there is none, in front of a word for it."""
ALONE_WITHOUT = (
    "pre", "prae", "native", "nativ", "nativa", "nativo", "natif", "nativni", "natywny", "natywne", "nativt", "basal",
    "unenhanced", "noncontrast", "precontrast", "nonenhanced", "uncontrasted", "kontrastlos", "plain", "blanco", "sc",
    "t1n", "нативный", "нативная", "натив", "平扫", "平掃", "単純", "조영전", "kontrastsiz", "noce", "nogad", "nogd",
    "nokm", "vkm", "pregd", "pregad", "prekm", "preinj", "wocontrast", "civless",
)  # fmt: skip
"""What says so by itself."""


def _any(words: tuple[str, ...]) -> str:
    """A pattern for any of the words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_EDGE, _END = r"(?<![^\W\d_])", r"(?![^\W\d_])"
"""No letter before, none behind; scripts without spaces have no such edges."""
_NO_SPACES = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]")
_AGENT = rf"(?:{_any(AGENTS)}|gado[a-z]*)"
_STEMS = (
    "[ck]ontrast[a-z]*|kontra(?:sz|sc)[a-z]*|in[jy]e[ck]?t[a-z]*|inie(?:tt|z)[a-z]*|контраст[а-яіїє]*|σκιαγραφικ[α-ω]*"
    "|rehauss[a-z]*"
)
"""How such words begin, whatever their endings."""
_WORD = rf"(?:{_any(tuple(w for w in CONTRAST_WORDS if not _NO_SPACES.search(w)))}|{_STEMS}|{_AGENT})"
_WITHOUT = re.compile(
    rf"{_EDGE}(?:{_any(WITHOUT_WORDS)})[ .-]*(?:(?:i ?v|any|de|di|iv|the|dem)[ .-]*)?(?:{_WORD}|i ?v){_END}"
    rf"|(?<![^\W_])-[ ]?(?:{_WORD}|c){_END}"  # "T1 -Gd"; the dash of "T1-Gd" is a hyphen
    rf"|{_EDGE}(?:{_any(tuple(w for w in ALONE_WITHOUT if not _NO_SPACES.search(w)))}){_END}"
    rf"|{_EDGE}(?:{_WORD}|c) ?-(?=\s|$|\))|\(-\)"
    r"|平扫|平掃|単純|조영전|造影前|增强前|増強前|조영 ?전|未增强|非造影"
    rf"|{_EDGE}w ?/ ?o(?: ?/? ?(?:c|iv)\b)?|{_EDGE}(?:s|o) ?/ ?(?:c|km|gd){_END}"
)
_WITH = re.compile(
    rf"{_EDGE}{_WORD}{_END}"
    rf"|{_EDGE}(?:{_any(ALONE_AFTER)}){_END}"
    rf"|{_EDGE}(?:post|after|nach|apres)[ ._-]*(?:{_WORD})"
    r"|(?:t1[a-z]{0,3}|bravo|mprage|spgr|vibe|tfl)[ _-]*(?:ce|gd|gad|c|km|post|k)(?![a-z])|t1c\w{0,2}(?![a-z0-9])"
    rf"|\(\+\)|\+\s*(?:$|[)\]])|{_EDGE}i\.? ?v\.?(?![^\W_])"
    r"|\+[ ]?(?:c|g|gd|gad|km|k|ce|cm|mdc|inj|civ|iv)(?![^\W\d_])|(?<![^\W_])c[ ]?\+|(?<=t1)\+"
    rf"|{_EDGE}(?:with|mit|w|c|m|avec|con|com) ?/? ?(?:c|km|gd|gad|k){_END}"
    rf"|{_EDGE}(?:with|mit|avec|con|com)$"
    r"|增强|增強|増強|强化|造影|조영"
)
_SAFE_WORDS = re.compile(r"\d ?cm(?![^\W_])|high contrast|contrast (?:optimi[sz]ed|ratio)")
"""Centimetres, and the contrast of the picture itself."""
_FLAIR = re.compile(r"flair|(?<![a-z0-9])t2[ _-]?f(?![a-z0-9])|\btirm\b|dark[ _-]?fluid|da[ _-]?fl\b")
_T1 = re.compile(r"(?<![a-z0-9])t1|mprage|mp2rage|bravo|\bspgr\b|\bfspgr\b|\btfl\b|\bvibe\b")
_T2 = re.compile(r"(?<![a-z0-9])t2(?!\*)")
_OTHER = re.compile(
    r"t2 ?\*|t2[ _-]?star|\bswi\b|\bgre\b|\bdwi\b|\badc\b|\bdti\b|trace|\bperf|\bdsc\b|\bdce\b|\basl\b|\bbold\b|\bep2d"
    r"|(?<![a-z])(?:seg|mask|label|pred\w*|probability|synthetic|subtraction|difference|deformation|uncertainty)"
    r"|\blocali[sz]er\b|\bscout\b|\bsurvey\b|\bmap\b|\bmag(?:nitude)?\b|\bphase\b"
)


def _texts(description: str) -> tuple[str, str]:
    """Small letters without accents, underscores and runs of spaces as one space; and the same with the words of a
    compound apart ("GdT1", but not "ProHance", is two)."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z\d])", " ", description)
    return _plain(description), _plain(apart)


def _plain(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text.replace("ı", "i"))
    whole = unicodedata.normalize("NFC", "".join(c for c in parts if not unicodedata.combining(c)))
    return re.sub(r"[_\s]+", " ", whole.lower())


def contrast_of(description: str) -> str | None:
    """Which scan a name or description speaks of: "t1", "t2", "flair", "t1c", or None.

    A T1 that anything says to be with contrast is never taken for a T1: its rim is what is to be predicted.
    """
    text = _texts(description)[1]
    if _OTHER.search(text):
        return None
    is_t1, is_t2 = _T1.search(text) is not None, _T2.search(text) is not None
    if _FLAIR.search(text) and not (is_t1 and not is_t2 and "t2" not in text):  # T1 FLAIR is a T1
        return None if says_with(description) and "t1" not in text and "contrast" in text else "flair"
    if is_t1 and not is_t2:
        return "t1c" if says_with(description) else "t1"
    if is_t2 and not is_t1:
        return "t2"
    return None


def says_with(description: str) -> bool:
    """Whether it says that contrast agent was given, in any of the usual languages, by a word or an agent's name."""
    return any(_WITH.search(_SAFE_WORDS.sub(" ", _WITHOUT.sub(" ", text))) for text in _texts(description))


def says_without(description: str) -> bool:
    """Whether it says that there is no contrast agent ("nativ", "w/o", "ohne KM"), and nothing else says there is."""
    return any(_WITHOUT.search(text) for text in _texts(description)) and not says_with(description)
