"""The language of a text: by its script, and by the small words that every sentence has.

Enough to tell the language that was asked for from another, which is all that is asked; a name in
another language is no reason to doubt a caption. Bigger detectors need a model of 100 MB for it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_SMALL = {
    "en": "the a an is are was with and of in on at to his her their it its this that from by for",
    "de": "der die das ein eine einen einem einer und ist sind mit auf im am den dem des sich sie"
    " er nicht noch vor neben stehen steht liegt hat dort einige sehr",
    "fr": "le la les un une des du de et est sont dans sur avec au aux qui que son sa ses devant"
    " près ou il elle sous",
    "es": "el la los las un una y de del en con es está están por al su sus que hay junto se mira",
    "pt": "o a os as um uma e de do da dos das em no na com é está por ao seu sua que há se",
    "it": "il lo la gli le un una e di del della in nel nella con è sono per al suo che su sul"
    " sulla si due",
    "nl": "de het een en van in op met is zijn langs aan voor naar bij die dat er haar",
    "sv": "en ett och på av med är i som för till sin sina det den sitter står",
    "da": "en et og på af med er i som for til sin det den der ved",
    "no": "en et og på av med er i som for til sin det den ved",
    "pl": "na z w i jest się przy do po od ze który która nad pod oraz są stoi",
    "cs": "na s v a je se u do po od ze který která nad pod jsou stojí",
    "tr": "bir ve ile bu da de için olan üzerinde yanında önünde kenarında var çok",
    "vi": "một và của trong trên với là có người đang những các được",
    "id": "yang dan di dengan sebuah seorang dari ini itu pada adalah sedang ke",
    "ro": "un o și de pe cu în la este sunt care lângă din",
    "hu": "egy a az és van egyik mellett alatt előtt hogy nem",
    "fi": "ja on ovat joka jossa edessä vieressä mies nainen",
}
"""Words that a sentence can hardly do without."""
_LETTERS = {
    "de": "äöüß",
    "fr": "éèêàçùœ",
    "es": "áéíóúñ",
    "pt": "ãõçáéâê",
    "sv": "åäö",
    "da": "åæø",
    "no": "åæø",
    "pl": "ąćęłńśźż",
    "cs": "ěščřžůý",
    "tr": "ığşçö",
    "vi": "ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹđơư",
    "ro": "ăâîșț",
    "hu": "őűáéö",
    "fi": "äö",
}
"""Letters that hint at a language; a name may have one, too."""
_SCRIPTS = {
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL", "CJK"),
    "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",),
    "bg": ("CYRILLIC",),
    "sr": ("CYRILLIC", "LATIN"),
    "ar": ("ARABIC",),
    "fa": ("ARABIC",),
    "ur": ("ARABIC",),
    "he": ("HEBREW",),
    "el": ("GREEK",),
    "hi": ("DEVANAGARI",),
    "mr": ("DEVANAGARI",),
    "bn": ("BENGALI",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "th": ("THAI",),
    "ka": ("GEORGIAN",),
    "hy": ("ARMENIAN",),
}
"""Every other language is taken to be written in Latin letters."""
_DENSE = {"CJK": 3, "HIRAGANA": 2, "KATAKANA": 2, "HANGUL": 2}
"""Latin letters that one letter of these stands for, about."""
_SHARE = 0.35
"""Of the letters: less in another script is a name, or the words on a sign."""
_MARGIN = 3
"""Hits by which another language must be ahead."""


def known(language: str) -> bool:
    """Whether answers in ``language``, an ISO 639-1 code, can be told from others."""
    return language in _SMALL or language in _SCRIPTS


def is_other(text: str, language: str) -> bool:
    """Whether ``text`` is, for the greater part, not in ``language``; False where in doubt.

    >>> is_other("Ein Mann mit Hut steht vor dem Haus und raucht.", "en")
    True
    >>> is_other("Mount Fuji (富士山) in spring", "en")
    False
    """
    scripts = _scripts(text)
    ours = _SCRIPTS.get(language, ("LATIN",))
    others = sum(count for script, count in scripts.items() if script not in ours)
    if scripts and others > _SHARE * scripts.total():
        return True
    # Chinese without kana is not Japanese, but a short Japanese caption may have none either.
    if language == "zh" and scripts["HIRAGANA"] + scripts["KATAKANA"] > _SHARE * scripts.total():
        return True
    if language == "ja" and scripts["CJK"] > 30 and not scripts["HIRAGANA"] + scripts["KATAKANA"]:
        return True
    return "LATIN" in ours and _is_other_latin(text, language)


def _scripts(text: str) -> Counter[str]:
    """Letters of each script, the dense ones counted for what they say."""
    if text.isascii():
        return Counter(LATIN=sum(map(str.isalpha, text)))
    scripts = Counter[str]()
    for letter in text:
        if letter.isalpha():
            scripts[_script(letter)] += _DENSE.get(_script(letter), 1)
    return scripts


@lru_cache(4096)
def _script(letter: str) -> str:
    """The first word of a letter's Unicode name."""
    return unicodedata.name(letter, "?").partition(" ")[0]


def _is_other_latin(text: str, language: str) -> bool:
    """Whether another language's small words and letters are clearly ahead."""
    if language not in _SMALL:
        return False
    # Each word once: a loop of "A, S, D, F" is no Czech.
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    hits = {each: _hits(words, each) for each in _SMALL}
    best = max(hits, key=lambda each: hits[each])
    # A short caption has few of them; it has none of ours where it is in another language.
    short = not hits[language] and hits[best] >= 2 and len(words) >= 4
    return short or hits[best] - hits[language] >= _MARGIN


def _hits(words: set[str], language: str) -> int:
    letters = set(_LETTERS.get(language, ""))
    marked = sum(not word.isascii() and not letters.isdisjoint(word) for word in words)
    return len(words & _small(language)) + marked


@lru_cache
def _small(language: str) -> frozenset[str]:
    return frozenset(_SMALL[language].split())
