"""The demo as a process of its own, and a browser that draws on its pad."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
APP = [str(ROOT / "demo" / "app.py")]
CHROMIUM = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 600  # seconds to wait for a server, a page or an answer
ANSWERED = """() => {
  const count = (place) => Number(document.querySelector(place)?.dataset.drawn);
  return count("#pad .paper") > 0 && count("#pad .paper") === count("#results .hits");
}"""
# Takes the time from the end of a stroke until its answer's pictures are decoded and the next frame is due.
STOPWATCH = """(answered) => {
  answered = eval(answered);
  document.addEventListener("pointerup", (event) => {
    window.shown = new Promise((resolve, reject) => {
      const watch = new MutationObserver(() => look().catch(reject));
      async function look() {
        if (!answered()) return;
        watch.disconnect();
        const pictures = [...document.querySelectorAll("#results button.hit img")];
        await Promise.all(pictures.map((picture) => picture.decode()));
        requestAnimationFrame(() => resolve(performance.now() - event.timeStamp));
      }
      watch.observe(document.body, { subtree: true, childList: true, attributes: true });
      setTimeout(() => look().catch(reject));
      setTimeout(() => reject(new Error("no answer within a minute")), 60000);
    });
  });
}"""


@dataclass(frozen=True)
class Server:
    """A demo that runs.

    Attributes:
        url: where it answers.
        pid: its process.
    """

    url: str
    pid: int


@contextmanager
def serve(checkpoint: str, program: Sequence[str] = APP) -> Iterator[Server]:
    """Start a demo on a free port of this machine, and wait until it answers; stop it at the end.

    Raises:
        OSError: it stopped, or took too long.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *program, "--port", str(port), "--checkpoint", checkpoint]
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            url = f"http://127.0.0.1:{port}"
            if not _wait_until_up(process, url):
                told.seek(0)
                raise OSError(f"{' '.join(command)} does not answer; it said: {told.read()[-2000:]}")
            yield Server(url, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def memory_of(pid: int) -> float:
    """Give the resident memory of a process in MiB."""
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) / 1024


def _wait_until_up(process: subprocess.Popen, url: str) -> bool:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE):
                return True
        except OSError:
            time.sleep(0.05)
    return False


@contextmanager
def open_browser() -> Iterator[Any]:
    """Open an empty page in headless Chromium.

    Raises:
        ImportError: Playwright is not installed.
        FileNotFoundError: there is no Chromium.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ImportError('the demo is measured with Playwright: pip install "dsh-hf[test]"') from error
    with sync_playwright() as driver:
        own = driver.chromium.executable_path
        path = own if os.path.exists(own) else next(filter(None, map(shutil.which, CHROMIUM)), None)
        if path is None:
            raise FileNotFoundError("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE)
        yield page
        browser.close()


def open_pad(page: Any, url: str) -> None:
    """Go to the demo; come back when its pen draws."""
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("#pad .examples button")


def draw_stroke(page: Any, stroke: Sequence[float]) -> None:
    """Draw a stroke with the mouse, point by point."""
    paper = page.locator("#pad .paper canvas").bounding_box()
    xs = [paper["x"] + paper["width"] * x / 100 for x in stroke[::2]]
    ys = [paper["y"] + paper["height"] * y / 100 for y in stroke[1::2]]
    page.mouse.move(xs[0], ys[0])
    page.mouse.down()
    for x, y in zip(xs[1:], ys[1:], strict=True):
        page.mouse.move(x, y)
    page.mouse.up()


def clear(page: Any) -> None:
    """Take an empty sheet, and wait until no results are left."""
    page.click("#pad .clear")
    page.wait_for_function("() => !document.querySelector('#results button.hit')", polling=50)


def read_results(page: Any) -> list[str]:
    """Give the ids of the results, once they are those of what is on the pad."""
    page.wait_for_function(ANSWERED, polling=50)
    return page.evaluate("() => [...document.querySelectorAll('#results button.hit')].map((hit) => hit.dataset.id)")
