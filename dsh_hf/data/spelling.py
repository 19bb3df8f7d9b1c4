"""When two names are the same class, as ``"hot-air_balloon"`` and ``"Hot air balloon"``."""

import re
import unicodedata


def spelling(name: str) -> str:
    """Give what all spellings of a class name share: its letters and digits in lower case, if it has any."""
    name = unicodedata.normalize("NFKC", name).lower()  # file systems write accents in two ways
    return re.sub(r"[\W_]+", "", name) or name
