# SPDX-License-Identifier: BSD-3-Clause
"""Hindi beside English, from Babel and Django. Used by `translation.py`."""

import gettext
import unicodedata
from pathlib import Path


def hindi_english():
    """Pairs of short texts, each once."""
    import babel
    import django

    hi, en = babel.Locale("hi"), babel.Locale("en")
    pairs = {}
    for kind in ("territories", "languages", "currencies", "scripts", "variants"):
        theirs, ours = getattr(hi, kind), getattr(en, kind)
        pairs.update((theirs[key], ours[key]) for key in theirs if key in ours)
    for zone, names in hi.time_zones.items():
        if "city" in names:
            pairs[names["city"]] = zone.split("/")[-1].replace("_", " ")
    for path in sorted(Path(django.__file__).parent.rglob("locale/hi/*/django.mo")):
        with open(path, "rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog
        pairs.update((hi, en) for en, hi in catalog.items() if isinstance(en, str))
    # Without messages that have places for values, and those that are not Hindi.
    return [
        (source, target)
        for source, target in pairs.items()
        if 0 < len(source) < 32 > len(target) > 0
        and not set("%{<\n") & set(source + target)
        and any("\u0900" <= letter < "\u0980" for letter in source)
    ]


def sound(letter):
    """The end of a letter's Unicode name: matplotlib's fonts have no Devanagari."""
    name = unicodedata.name(letter, letter).split()
    return ("-" if "SIGN" in name else "") + name[-1].lower()
