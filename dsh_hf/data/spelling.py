"""When two names are the same class: ``"hot-air_balloon"``, ``"Hot air balloon"``; ``"car_(sedan)"``, ``"car (sedan)"``."""

import re


def spelling(name: str) -> str:
    """Give what all spellings of a class name share: its letters and digits in lower case, nothing else."""
    return re.sub(r"[\W_]+", "", name.lower())
