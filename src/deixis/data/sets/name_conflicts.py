"""Class names of several data sets that may mean one class: case, blanks, plurals, and other words for the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Names of Pascal VOC and everyday names, as COCO has them, without blanks.
_OTHER_WORDS = {
    "aeroplane": "airplane",
    "plane": "airplane",
    "motorbike": "motorcycle",
    "bike": "bicycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "mobilephone": "cellphone",
    "automobile": "car",
    "people": "person",
    "human": "person",
    "lorry": "truck",
    "mice": "mouse",
    "knives": "knife",
    "children": "child",
    "men": "man",
    "women": "woman",
    "leaves": "leaf",
    "sheep": "sheep",
}


def name_key(name: str) -> str:
    """Equal for names that may mean one class.

    >>> name_key("Traffic_Lights") == name_key("traffic light"), name_key("glass") == name_key("glasses")
    (True, True)
    """
    plain = re.sub(r"[\W_]+", "", name.casefold()) or name
    return _OTHER_WORDS.get(plain, _OTHER_WORDS.get(_singular(plain), _singular(plain)))


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(ss|us|x|z|ch|sh)es$", word):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def name_conflicts(vocabularies: Sequence[Sequence[str]]) -> list[list[str]]:
    """Groups of names that may be one class, where no data set has all of them as classes of their own."""
    groups: dict[str, list[str]] = {}
    for names in vocabularies:
        for name in names:
            group = groups.setdefault(name_key(name), [])
            if name not in group:
                group.append(name)
    return [
        group
        for group in groups.values()
        if len(group) > 1 and not any(set(group) <= set(names) for names in vocabularies)
    ]
