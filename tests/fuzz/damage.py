"""Damage to files: of the values where the format is text, of the bytes, of the file itself."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from random import Random
from typing import Any

FAR = 2**31
_DEEP = 100_000
_TEXTS = [
    "",
    " ",
    "\x00",
    "\x1b[31mred\x1b[0m",
    "[red]x[/red]",
    "[/]",
    "a\nb",
    "\u202eevil",
    "\ud800",
    "\udce9",
    "é",
    "🦝",
]
_TEXTS += ["../../x", "/etc/passwd", "CON", "a" * 5_000, "9" * 5_000, "NaN", "1e999", "<b>&", "'; DROP", "%s%n", "=1+1"]
_TEXTS += ["person", "0", "-1", "true", "null", "1.5", "{}", "!!python/object/apply:os.system [x]", "/dev/zero"]
_NUMBERS: list[Any] = [
    0,
    -1,
    1,
    2,
    0.5,
    -0.0,
    1e-320,
    1e30,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    FAR,
    -FAR,
    2**63,
]
_NUMBERS += [2**64, 4e8, 1.2e7, 65_536, 10**30, 10**400, True]
_TOKEN = re.compile(r"[^\s,:<>\"'\[\]{}=]+")
_TOKENS = ["", "-1", "0", "1e999", "nan", "inf", "9" * 5_000, str(FAR), "4e8", "1e30", "x", "\x00", "\x1b[2J", "[red]"]
_TOKENS += [
    "\u2028",
    "\u202e",
    "é",
    "null",
    "true",
    "~",
    "*a",
    "&a",
    "[",
    "{",
    ",",
    '"',
    "/dev/zero",
    "../..",
    "<",
    "]]>",
]
_XML_BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "{0}"><!ENTITY c "{1}"><!ENTITY d "{2}">]>'


def damage(folder: Path, random: Random) -> str:
    """Damage one or a few files of a folder; what was done, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    done = []
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        file = random.choice(files)
        if not file.is_file() or file.is_symlink():
            continue
        kinds = [_bytes, _bytes, _the_file]
        if file.suffix in (".json", ".jsonl"):
            kinds += [_json] * 12
        elif file.suffix in (".txt", ".csv", ".yaml", ".yml", ".xml"):
            kinds += [_text] * 8
        kind = random.choice(kinds)
        done.append(f"{file.relative_to(folder)} {kind(file, random)}")
    return "; ".join(done)


def hostile_value(random: Random, depth: int = 0) -> Any:
    """A value that a file could hold where another is expected."""
    choice = random.randrange(10)
    if choice < 4:
        return random.choice(_NUMBERS)
    if choice < 7 or depth > 2:
        return random.choice(_TEXTS)
    if choice == 7:
        return None
    inner = [hostile_value(random, depth + 1) for _ in range(random.randrange(5))]
    return inner if choice == 8 else {str(random.choice(_TEXTS)): value for value in inner}


def _json(file: Path, random: Random) -> str:
    """Change values of a JSON file, or of one line."""
    lines = (
        file.read_text(encoding="utf-8", errors="replace").split("\n")
        if file.suffix == ".jsonl"
        else [file.read_text(encoding="utf-8", errors="replace")]
    )
    number = random.randrange(len(lines))
    try:
        content = json.loads(lines[number])
    except (ValueError, RecursionError):
        return _text(file, random)
    told = []
    for _ in range(random.choice([1, 1, 2, 3])):
        content, what = _changed(content, random)
        told.append(what)
    text = json.dumps(content)
    if random.random() < 0.05:
        text = text.replace(":", ": " + "[" * _DEEP, 1)
    elif random.random() < 0.05:
        text = re.sub(r"\d+", "9" * 5_000, text, count=random.randrange(1, 5))
    elif random.random() < 0.05 and text.startswith("{"):
        text = text[:-1] + "," + text[1:]
    lines[number] = text
    file.write_text("\n".join(lines), encoding="utf-8")
    return ", ".join(told)


def _changed(content: Any, random: Random) -> tuple[Any, str]:
    """The content with one value, chosen somewhere in it, changed in place."""
    places = list(_places(content))
    if not places:
        return hostile_value(random), "all replaced"
    parent, key = random.choice(places)
    kind = random.randrange(6)
    if kind == 0:
        del parent[key]
        return content, f"{key!r} removed"
    if kind == 1 and isinstance(parent, list):
        parent.append(parent[key])
        return content, f"{key!r} repeated"
    if kind == 2:
        parent[key] = [parent[key]] if random.random() < 0.5 else {"0": parent[key]}
        return content, f"{key!r} wrapped"
    if kind == 3 and isinstance(parent[key], list) and parent[key]:
        parent[key] = parent[key] * random.choice([0, 2, 3, 50])
        return content, f"{key!r} multiplied"
    if kind == 4 and isinstance(parent[key], str) and parent[key]:
        text = parent[key]
        at = random.randrange(len(text))
        parent[key] = text[:at] + random.choice(_TEXTS)[:50] + text[at + random.randrange(2) :]
        return content, f"{key!r} edited"
    parent[key] = hostile_value(random)
    return content, f"{key!r} = {str(parent[key])[:30]!r}"


def _places(content: Any) -> Any:
    """(container, key) of every value."""
    pairs = enumerate(content) if isinstance(content, list) else content.items() if isinstance(content, dict) else ()
    for key, value in list(pairs):
        yield content, key
        yield from _places(value)


def _text(file: Path, random: Random) -> str:
    """Change words and lines, or the encoding."""
    text = file.read_bytes().decode("utf-8", "replace")
    kind = random.randrange(12)
    lines = text.split("\n")
    at = random.randrange(len(lines))
    if kind < 6:
        words = list(_TOKEN.finditer(text))
        for word in sorted(
            random.sample(words, min(len(words), random.choice([1, 1, 2, 5]))), key=lambda w: -w.start()
        ):
            text = text[: word.start()] + random.choice(_TOKENS) + text[word.end() :]
    elif kind == 6:
        text = "\n".join(lines[:at] + lines[at + 1 :])
    elif kind == 7:
        text = "\n".join(lines[:at] + [lines[at]] * random.choice([2, 100]) + lines[at + 1 :])
    elif kind == 8:
        lines[at] = lines[at] + random.choice([" ", ",", ",,,", "\t", "\r", " 0.5 0.5"])
        text = "\n".join(lines)
    elif kind == 9 and file.suffix in (".yaml", ".yml"):
        text = _yaml(text, random)
    elif kind == 9 and file.suffix == ".xml":
        text = _XML_BOMB.format("&a;" * 60, "&b;" * 60, "&c;" * 60) + re.sub(r">[^<]+<", ">&d;<", text, count=1)
    else:
        codec = random.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig", "utf-7", "cp1252"])
        if file.suffix == ".xml" and random.random() < 0.5:
            text = f'<?xml version="1.0" encoding="{random.choice(["latin-1", "utf-16", "ebcdic", "utf-7"])}"?>' + text
        file.write_bytes(text.encode(codec, "replace"))
        return f"as {codec}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"text {kind}"


def _yaml(text: str, random: Random) -> str:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    loop = "names: &n [*n, a]\n"
    return text + random.choice(
        [bomb, bomb + "names: *i\n", loop, "? [1]\n: 2\n", "names: {1: a, 1: b}\n", "k: " + "[" * _DEEP]
    )


def _bytes(file: Path, random: Random) -> str:
    """Flip, cut, repeat or overwrite bytes."""
    data = bytearray(file.read_bytes())
    if not data:
        file.write_bytes(random.randbytes(64))
        return "filled"
    for _ in range(random.choice([1, 1, 3, 20])):
        at = random.randrange(len(data))
        kind = random.randrange(6)
        if kind < 2:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            data[at : at + 4] = random.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
        elif kind == 3:
            del data[at : at + random.choice([1, 4, 100])]
        elif kind == 4:
            data[at:at] = data[: random.choice([1, 4, 100])]
        else:
            data[at] = random.randrange(256)
        if not data:
            break
    if random.random() < 0.2:
        del data[random.randrange(len(data) + 1) :]
    file.write_bytes(data)
    return "bytes"


def _the_file(file: Path, random: Random) -> str:
    """Put something else in the place of a file."""
    kind = random.choice(["gone", "empty", "folder", "pipe", "device", "loop", "renamed", "zip", "zeros"])
    file.unlink()
    if kind == "empty":
        file.touch()
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "loop":
        file.symlink_to(file)
    elif kind == "renamed":
        Path(os.fsdecode(os.fsencode(file.parent) + b"/\xff\xe9" + os.fsencode(file.suffix))).write_bytes(b"{}")
    elif kind == "zip":
        file.write_bytes(b"PK\x03\x04" + random.randbytes(60))
    elif kind == "zeros":
        file.write_bytes(bytes(5_000))
    return kind
