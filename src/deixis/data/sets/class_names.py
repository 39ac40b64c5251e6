"""Which classes are used and under which names, from what a user types; and names that may mean one class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from deixis.errors import OptionError
from deixis.text import clean_name, listed

_SHOWN = 12
_SIMILARITY = 0.6


def settle_names(
    names: Sequence[str],
    *,
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    rename: Sequence[str] = (),
    merge: Sequence[str] = (),
    where: str = "the data",
) -> dict[str, str]:
    """The names that are used, in their new order, to the names that they get; several may get one.

    Args:
        names: of all classes.
        keep: the classes to use, all if not given: new or old names, each text one name or several after commas.
        drop: the classes to leave out, likewise.
        rename: texts `old=new`.
        merge: texts `old,old=new`; the same but that several names are meant.
        where: the data, for messages.

    Raises:
        OptionError: a name of no class, two new names for one class, or no class left.

    >>> settle_names(["cat", "car", "bus"], merge=["car,bus=vehicle"], drop=["cat"])
    {'car': 'vehicle', 'bus': 'vehicle'}
    """
    given: dict[str, str] = {}
    for flag, texts in (("--rename", rename), ("--merge", merge)):
        for text in texts:
            for olds, new in _assignments(flag, text, names, given, where):
                for old in olds:
                    before = given.setdefault(old, new)
                    if before != new:
                        raise OptionError(f"{flag} {text!r}: {old!r} is to become {before!r} too; give it one name")
    settled = {name: given.get(name, name) for name in names}
    wanted = _chosen("--classes", keep, settled, where)
    unwanted = _chosen("--drop", drop, settled, where)
    both = [name for name in wanted if name in unwanted]
    if both:
        raise OptionError(f"--classes and --drop both name {both[0]!r}; choose one of them")
    order = wanted or list(dict.fromkeys(settled.values()))
    used = {old: new for target in order for old, new in settled.items() if new == target and new not in unwanted}
    if not used:
        raise OptionError(f"--drop: no class of {where} is left; it has {listed(list(names), _SHOWN)}")
    return used


def _assignments(
    flag: str, text: str, names: Sequence[str], given: dict[str, str], where: str
) -> list[tuple[list[str], str]]:
    """The (old names, new name) pairs of `old=new`, of `old,old=new`, or of several `old=new` after commas."""
    parts = text.split(",")
    # Only where each part has a sign of its own; `car,bus=vehicle` is one pair.
    if len(parts) > 1 and all("=" in part for part in parts):
        try:
            return [pair for part in parts for pair in _assignments(flag, part, names, given, where)]
        except OptionError:  # the text is one pair, with signs in its names
            pass
    # a name may hold "=" itself: each sign may be the one
    sides = [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == "="]
    if not sides:
        raise OptionError(f"{flag}: expected OLD=NEW, got {text!r}")
    new_names = list(given.values())
    found = [(_names_in(old, [*names, *new_names]), clean_name(new)) for old, new in sides]
    for olds, new in found:
        if new and olds and all(old in names or old in new_names for old in olds):
            # A name that an earlier option gave stands for all names that it was given to.
            plain = [[old] if old in names else [name for name, to in given.items() if to == old] for old in olds]
            return [([name for group in plain for name in group], new)]
    olds, new = found[0]
    if not new or not olds:
        raise OptionError(f"{flag}: expected OLD=NEW, got {text!r}")
    unknown = next(old for old in olds if old not in names and old not in new_names)
    raise OptionError(f"{flag} {text!r}: {_unknown(unknown, names, where)}")


def _chosen(flag: str, texts: Sequence[str], settled: dict[str, str], where: str) -> list[str]:
    """New names of the classes that a user names by them or by the old ones, each once, in the order given."""
    known = list(dict.fromkeys([*settled.values(), *settled]))
    found: dict[str, None] = {}
    for text in texts:
        for name in _names_in(text, known):
            if name not in known:
                raise OptionError(f"{flag}: {_unknown(name, known, where)}")
            # a new name goes before an old one of the same letters
            found[name if name in settled.values() else settled[name]] = None
    return list(found)


def _names_in(text: str, known: Sequence[str]) -> list[str]:
    """One name, or several after commas; a known name may itself have commas."""
    text = clean_name(text)
    return [text] if text in known else [part for part in map(clean_name, text.split(",")) if part]


def _unknown(name: str, known: Sequence[str], where: str) -> str:
    # Reversed: of names that differ in case only, the first is proposed.
    by_letters = {other.casefold(): other for other in reversed(known)}
    near = get_close_matches(name.casefold(), list(by_letters), 1, _SIMILARITY)
    hint = f"did you mean {by_letters[near[0]]!r}? Its" if near else "its"
    return f"no class {name!r} in {where}; {hint} classes: {listed(list(known), _SHOWN)}"


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
