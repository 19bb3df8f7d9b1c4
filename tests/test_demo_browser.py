"""The demo's page in a real browser: drawing with the mouse, results that follow."""

import os
import shutil

import pytest
from test_demo import app, draw, make_photos
from tiny_checkpoint import tiny_model

playwright = pytest.importorskip("playwright.sync_api", reason='needs Playwright: pip install "dsh-hf[test]"')
pytestmark = pytest.mark.browser

CHROMIUM = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    photos = make_photos(tmp_path_factory.mktemp("photos") / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.cached_assets_path", lambda *_: tmp_path_factory.mktemp("assets"))
        demo = app.build_demo(app.open_folder(photos, tiny_model(bits=64)))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.PAGE)
    yield url
    demo.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        path = own if os.path.exists(own) else next(filter(None, map(shutil.which, CHROMIUM)), None)
        if path is None:
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def requests():
    return []


@pytest.fixture(scope="module")
def loaded(browser, url, requests):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    page.set_default_timeout(60_000)  # a busy machine is slow, not broken
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("#pad .examples button")
    return page


@pytest.fixture
def page(loaded):
    """Give the page with an empty pad and no results."""
    loaded.click("role=tab[name='Draw']")
    loaded.click("#pad .clear")
    loaded.wait_for_function("document.querySelectorAll('#results img').length === 0")
    return loaded


def press(page, x, y):
    paper = page.locator("#pad .paper canvas").bounding_box()
    page.mouse.move(paper["x"] + paper["width"] * x / 100, paper["y"] + paper["height"] * y / 100)
    page.mouse.down()


def move(page, x, y):
    paper = page.locator("#pad .paper canvas").bounding_box()
    page.mouse.move(paper["x"] + paper["width"] * x / 100, paper["y"] + paper["height"] * y / 100, steps=4)


def stroke(page, start, *more):
    press(page, *start)
    for point in more:
        move(page, *point)
    page.mouse.up()


def ink(page):
    """Count the black pixels of the pad."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector("#pad .paper canvas");
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.filter((value, i) => i % 4 === 3 && value > 128).length;
        }"""
    )


def captions(page, other_than=()):
    """Give the captions of the results, once they are there, others than those before, and change no more."""
    read = "[...document.querySelectorAll('#results img')].map(picture => picture.alt)"
    page.wait_for_function(f"old => {read}.length > 0 && {read}.join() !== old", arg=",".join(other_than))
    while True:
        found = page.evaluate(read)
        page.wait_for_timeout(500)
        if page.evaluate(read) == found:
            return found


def test_the_pen_is_ready_when_the_page_is(loaded):
    assert loaded.inner_text("#status") == app.HINT
    stroke(loaded, (20, 20), (80, 20), (50, 80))
    assert ink(loaded) > 5000
    assert len(captions(loaded)) == 3
    assert "encoded in" in loaded.inner_text("#status")


def test_results_change_with_every_stroke(page):
    stroke(page, (20, 20), (80, 20))
    first = captions(page)
    stroke(page, (80, 20), (50, 80), (20, 20))
    second = captions(page, other_than=first)
    page.click("#pad .undo")
    assert captions(page, other_than=second) == first


def test_results_come_while_the_pen_is_down(page):
    press(page, 20, 20)
    move(page, 80, 20)
    page.wait_for_timeout(400)
    move(page, 50, 80)
    assert captions(page)
    page.mouse.up()


def test_after_clear_the_pen_still_draws(page):
    stroke(page, (20, 20), (80, 80))
    captions(page)
    page.click("#pad .clear")
    page.wait_for_function("document.querySelectorAll('#results img').length === 0")
    assert ink(page) == 0
    assert page.inner_text("#status") == app.HINT
    stroke(page, (80, 20), (20, 80), (20, 20))
    assert ink(page) > 5000
    assert captions(page)


def test_an_example_is_put_on_the_pad_and_searched(page):
    page.click("#pad button[aria-label=umbrella]")
    first = captions(page)
    assert ink(page) > 5000
    stroke(page, (5, 95), (95, 95))  # and can be drawn on
    assert captions(page, other_than=first)


def test_a_drawing_is_uploaded(page, tmp_path):
    page.click("role=tab[name='Upload a drawing']")
    page.set_input_files("input[type=file]", draw(tmp_path))
    assert len(captions(page)) == 3
    page.click("button[aria-label='Remove Image']")
    page.wait_for_function("document.querySelectorAll('#results img').length === 0")


def test_a_broken_upload_is_answered_with_the_reason(page, tmp_path):
    page.click("role=tab[name='Upload a drawing']")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.set_input_files("input[type=file]", tmp_path / "broken.png")
    page.wait_for_selector(".toast-body:has-text('broken.png is not a picture')")
    assert page.inner_text("#status").startswith("broken.png is not a picture")
    page.click("button[aria-label='Remove Image']")


def test_the_number_of_results_is_chosen(page):
    page.click("#pad button[aria-label=fish]")
    captions(page)
    page.fill("input[type=number]", "1")
    page.wait_for_function("document.querySelectorAll('#results img').length === 1")
    page.fill("input[type=number]", "12")
    page.wait_for_function("document.querySelectorAll('#results img').length === 3")


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 400, "height": 860})
    page.click("#pad button[aria-label=cat]")
    captions(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    paper = page.locator("#pad .paper").bounding_box()
    assert paper["width"] > 300
    assert page.locator("#results").bounding_box()["y"] > paper["y"] + paper["height"]
    page.set_viewport_size({"width": 1200, "height": 900})


def test_nothing_is_asked_of_other_servers(page, requests, url):
    asked = [address for address in requests if not address.startswith(("data:", "blob:"))]
    assert len(asked) > 10
    assert [address for address in asked if not address.startswith(url)] == []
