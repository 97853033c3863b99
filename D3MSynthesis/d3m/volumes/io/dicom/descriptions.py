"""Which scan a series' description or a node's name speaks of. Pure text; Slicer's own process imports it, too."""

from __future__ import annotations

import re

# "T1 w/o contrast", "non-contrast", "pre", "nativ": said to be without, although the word for it is there
_WITHOUT = re.compile(
    r"\b(?:w ?/ ?o|without|no|non|not|ohne|sans|sin)[ _-]*(?:iv[ _-]*)?(?:contrast|contr|gado\w*|gad|gd|km|ce|enh\w*)\b"
    r"|\bpre[ _-]*(?:contrast|contr|gado\w*|gad|gd|km)?\b|\bnative?\b|\bunenhanced\b|\bnoncontrast\b|\bprecontrast\b"
    r"|\bt1n\b"
)
_WITH = re.compile(
    r"t1w?[ _-]*(?:ce|gd|gad|c|km|post)(?![a-z])|t1c\w{0,2}(?![a-z0-9])|\+[ ]?(?:c|gd|gad|km)\b|\bc\+|\bce\b|\bpost\b"
    r"|post[ _-]?(?:contrast|gad|gd|con)|\bgd\b|\bgad\b|gado\w*|gadavist|dotarem|prohance|omniscan|magnevist"
    r"|contrast|\bcontr\b|\bkm\b|\benhanced\b|\benh\b|\b(?:w|with) ?/? ?c\b"
)
_FLAIR = re.compile(r"flair|(?<![a-z0-9])t2[ _-]?f(?![a-z0-9])|\btirm\b|dark[ _-]?fluid|da[ _-]?fl\b")
_T1 = re.compile(r"(?<![a-z0-9])t1|mprage|mp2rage|bravo|\bspgr\b|\bfspgr\b|\btfl\b|\bvibe\b")
_T2 = re.compile(r"(?<![a-z0-9])t2(?!\*)")
_OTHER = re.compile(
    r"t2 ?\*|t2[ _-]?star|\bswi\b|\bgre\b|\bdwi\b|\badc\b|\bdti\b|trace|\bperf|\bdsc\b|\bdce\b|\basl\b|\bbold\b|\bep2d"
    r"|(?<![a-z])(?:seg|mask|label|pred\w*|probability|synthetic|subtraction|difference|deformation|uncertainty)"
    r"|\blocali[sz]er\b|\bscout\b|\bsurvey\b|\bmap\b|\bmag(?:nitude)?\b|\bphase\b"
)


def contrast_of(description: str) -> str | None:
    """Which scan a name or description speaks of: "t1", "t2", "flair", "t1c", or None.

    A T1 that anything says to be with contrast is never taken for a T1: its rim is what is to be predicted.
    """
    text = re.sub(r"[_\s]+", " ", description.lower())
    if _OTHER.search(text):
        return None
    is_t1, is_t2 = _T1.search(text) is not None, _T2.search(text) is not None
    if _FLAIR.search(text) and not (is_t1 and not is_t2 and "t2" not in text):  # T1 FLAIR is a T1
        return None if _WITH.search(_WITHOUT.sub(" ", text)) and "t1" not in text and "contrast" in text else "flair"
    if is_t1 and not is_t2:
        return "t1c" if _WITH.search(_WITHOUT.sub(" ", text)) else "t1"
    if is_t2 and not is_t1:
        return "t2"
    return None
