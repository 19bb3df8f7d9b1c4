"""When two names are the same class, as ``"hot-air_balloon"`` and ``"Hot air balloon"``; and the words in a name."""

import unicodedata


def spelling(name: str) -> str:
    """Give what all spellings of a class name share: its letters and digits in lower case, if it has any."""
    name = unicodedata.normalize("NFKC", name).lower()  # file systems write accents in two ways
    return "".join(_parted(name)) or name


def words_of(name: str) -> list[str]:
    """Take a name apart, in lower case, at everything that is neither a letter, with its marks, nor a digit."""
    return _parted(unicodedata.normalize("NFC", name).lower())


def _parted(name: str) -> list[str]:
    # Marks are what \w lacks: Hindi and Thai write vowels as marks on the letter before them.
    parts = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in name).split()
    return [part for part in parts if any(map(str.isalnum, part))]
