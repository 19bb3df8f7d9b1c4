"""Many people who draw at once, as clients of the demo's API."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks._demo_drawings import Drawing

SHRINK = 0.93  # of a drawing, for each further round through them all

Hits = list[tuple[str, int]]  # ids and distances of an answer


@dataclass(frozen=True)
class Searches:
    """What a person got.

    Attributes:
        answers: one for each drawing.
        waits: seconds until each.
    """

    answers: list[Hits]
    waits: list[float]


def write_drawings(
    folder: Path, drawings: Sequence[Drawing], count: int, render: Callable[[list[list[float]]], Image.Image]
) -> list[Path]:
    """Write ``count`` different drawings as PNG files: what people have on the pad after each of their strokes.

    Args:
        folder: where to write them.
        drawings: what is drawn; after the last, all are drawn again, smaller.
        count: of files.
        render: draws strokes as the demo does.
    """
    files = []
    for number, strokes in enumerate(itertools.islice(_stages(drawings), count)):
        files.append(folder / f"{number}.png")
        render(strokes).save(files[-1])
    return files


def _stages(drawings: Sequence[Drawing]) -> Any:
    for size in (SHRINK**turn for turn in itertools.count()):
        for drawing in drawings:
            strokes = [[50 + size * (value - 50) for value in stroke] for stroke in drawing.strokes]
            yield from (strokes[: number + 1] for number in range(len(strokes)))


def search_together(url: str, shares: Sequence[Sequence[Path]]) -> list[Searches]:
    """Let as many people search as there are shares of files, all at once; each works through its own.

    Raises:
        ImportError: gradio is not installed.
    """
    try:
        from gradio_client import Client
    except ImportError as error:
        raise ImportError('the demo is asked through gradio: pip install "dsh-hf[demo]"') from error
    clients = [Client(url, download_files=False, verbose=False) for _ in shares]
    with ThreadPoolExecutor(len(shares)) as people:
        return list(people.map(_search_all, clients, shares))


def _search_all(client: Any, files: Sequence[Path]) -> Searches:
    from gradio_client import handle_file

    searches = Searches([], [])
    for file in files:
        started = time.perf_counter()
        _, answer = client.predict(handle_file(file), api_name="/search")
        searches.waits.append(time.perf_counter() - started)
        searches.answers.append([(hit["id"], hit["distance"]) for hit in answer["hits"]])
    return searches
