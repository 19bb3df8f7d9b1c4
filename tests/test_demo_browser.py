"""The demo's page in a real browser: drawing with the mouse, results that follow, and all that is around them."""

import os
import shutil

import pytest
from demo_parts import draw, make_photos
from PIL import Image
from tiny_checkpoint import tiny_model

# isort: split
import page as demo_page
from answers import HINT
from galleries import open_folder

playwright = pytest.importorskip("playwright.sync_api", reason='needs Playwright: pip install "dsh-hf[test]"')
pytestmark = pytest.mark.browser

CHROMIUM = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
HOSTILE = "<img src=x onerror=document.title='run'>${document.title='run'}{{value}}"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photos, names = make_photos(folder / "photos"), folder / "names"
    names.mkdir()
    Image.new("RGB", (60, 60), "red").save(names / f"{HOSTILE}.png")
    model = tiny_model(bits=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.cached_assets_path", lambda *_: tmp_path_factory.mktemp("assets"))
        galleries = [open_folder(photos, model), open_folder(names, model)]
    demo = demo_page.build_page(model, galleries)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **demo_page.LAUNCH)
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
    loaded.wait_for_function("document.querySelectorAll('#results .hit').length === 0")
    return loaded


def press(page, x, y):
    canvas = page.locator("#pad .paper canvas")
    paper = canvas.bounding_box()
    # Waits until the canvas moves no more: the page may still be laying itself out.
    canvas.hover(position={"x": paper["width"] * x / 100, "y": paper["height"] * y / 100})
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


def shown(page):
    """Give names and distances of the results, once they are those of the drawing on the pad."""
    page.wait_for_function(
        """() => {
            const [drawn, answered] = ["#pad .paper", "#results .hits"].map((name) => document.querySelector(name));
            return drawn.dataset.drawn === answered.dataset.drawn && answered.querySelector(".hit");
        }"""
    )
    return page.evaluate(
        "[...document.querySelectorAll('#results .hit')].map((hit) => [hit.querySelector('.name').innerText,"
        " Number(hit.dataset.distance)])"
    )


def names(page, count):
    """Give the names of the results, once there are so many."""
    page.wait_for_function(f"document.querySelectorAll('#results .hit').length === {count}")
    return page.locator("#results .hit .name").all_inner_texts()


def test_the_pen_is_ready_when_the_page_is(loaded):
    assert loaded.inner_text("#status") == HINT
    assert loaded.inner_text("#facts") == "3 pictures · 64 bits · exact, re-ranked · cpu"
    stroke(loaded, (20, 20), (80, 20), (50, 80))
    assert ink(loaded) > 5000
    assert sorted(name for name, _ in shown(loaded)) == ["grass", "sky", "sun"]
    assert "encoded in" in loaded.inner_text("#facts")


def test_results_change_with_every_stroke_and_back_with_undo(page):
    stroke(page, (20, 20), (80, 20))
    first = shown(page)
    stroke(page, (80, 20), (50, 80), (20, 20))
    assert shown(page) != first
    page.click("#pad .undo")
    assert shown(page) == first


def test_results_come_while_the_pen_is_down(page):
    press(page, 20, 20)
    move(page, 80, 20)
    page.wait_for_timeout(400)
    move(page, 50, 80)
    page.wait_for_selector("#results .hit")
    page.mouse.up()


def test_every_result_has_its_distance_and_a_bar_that_reads_it(page):
    stroke(page, (20, 20), (80, 20), (50, 80))
    found = shown(page)
    assert len(found) == 3
    for place, (name, distance) in enumerate(found):
        hit = page.locator("#results .hit").nth(place)
        assert f"{distance} bit" in hit.inner_text()
        assert hit.get_attribute("aria-label").startswith(f"{name}, {distance} of 64 bits differ")
        bar = hit.locator(".bar").bounding_box()["width"]
        assert hit.locator(".bar span").bounding_box()["width"] == pytest.approx(bar * max(0, 1 - distance / 32), abs=1)


def test_after_clear_the_pen_still_draws_and_undo_brings_the_drawing_back(page):
    page.click("#pad .eraser")
    stroke(page, (20, 20), (80, 80))
    assert ink(page) == 0
    page.click("#pad .clear")
    stroke(page, (80, 20), (20, 80), (20, 20))
    drawn = ink(page)
    assert drawn > 5000
    shown(page)
    page.click("#pad .clear")
    page.wait_for_function("document.querySelectorAll('#results .hit').length === 0")
    assert ink(page) == 0
    assert page.inner_text("#status") == HINT
    page.click("#pad .undo")
    assert ink(page) == drawn
    assert shown(page)


def test_the_eraser_takes_ink_where_it_goes_and_undo_gives_it_back(page):
    stroke(page, (10, 50), (90, 50))
    whole = ink(page)
    page.click("#pad .eraser")
    stroke(page, (50, 20), (50, 80))
    assert 0.85 * whole < ink(page) < 0.97 * whole  # a gap of 6 in a line of 80
    assert shown(page)
    page.click("#pad .undo")
    assert ink(page) == whole
    stroke(page, (5, 50), (95, 50))
    assert ink(page) == 0
    page.click("#pad .pen")
    stroke(page, (10, 50), (90, 50))
    assert ink(page) == whole


def test_an_example_is_put_on_the_pad_and_searched(page):
    page.click("#pad button[aria-label=umbrella]")
    first = shown(page)
    assert ink(page) > 5000
    stroke(page, (5, 95), (95, 95))  # and can be drawn on
    assert shown(page) != first


def test_why_the_first_was_found_is_told_when_the_pen_rests(page):
    page.click("#pad button[aria-label=fish]")
    (name, distance), *_ = shown(page)
    page.wait_for_selector("#why:not(.stale) svg")
    assert f"Why {name}?" in page.inner_text("#why")
    assert f"{distance} of 64 bits differ" in page.inner_text("#why")
    assert page.locator("#why figure").count() == 4
    page.click("#pad .clear")
    page.wait_for_selector("#why svg", state="hidden")


def test_a_click_opens_the_original_with_the_reason(page):
    page.click("#pad button[aria-label=fish]")
    (_, _), (name, _), *_ = shown(page)
    page.click("#results .hit >> nth=1")
    page.wait_for_selector("#opened .original")
    assert page.inner_text("#opened h2") == name
    assert page.evaluate("document.querySelector('#opened .original').naturalWidth") == 600
    assert page.locator("#opened figure").count() == 4
    page.click("#opened", position={"x": 6, "y": 6})  # its edge is not beside it
    assert page.is_visible("#opened .original")
    page.click("#opened .close")
    page.wait_for_selector("#opened", state="hidden")


def test_all_is_reached_by_keyboard(page):
    page.focus("#pad .pen")
    reached = []
    for _ in range(6 + 7 - 1):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText"))
    assert reached[:5] == ["Eraser", "Undo", "Clear", "Save", "Link"]
    assert reached[5:] == ["cat", "fish", "apple", "sailboat", "mushroom", "umbrella", "butterfly"]
    page.keyboard.press("Enter")
    shown(page)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#results .hit')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#opened .original")
    page.keyboard.press("Escape")
    page.wait_for_selector("#opened", state="hidden")


def test_a_link_opens_the_drawing_again(page, browser):
    page.click("#pad button[aria-label=sailboat]")
    first = shown(page)
    page.click("#pad .link")
    page.wait_for_function("document.querySelector('#pad .told').innerText.toLowerCase().includes('link')")
    assert "#draw=" in page.url and len(page.url) < 500
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    other = context.new_page()
    other.set_default_timeout(60_000)
    other.goto(page.url, wait_until="domcontentloaded")
    other.wait_for_selector("#results .hit")
    assert ink(other) == ink(page)
    assert shown(other) == first
    context.close()


@pytest.mark.parametrize("text", ["%25%3Cscript", "AA", "A", "____", "A" * 9000])
def test_a_damaged_link_breaks_nothing(page, text):
    page.evaluate(f"location.hash = 'draw={text}'")
    page.wait_for_timeout(100)
    assert ink(page) == 0
    stroke(page, (20, 20), (80, 20), (50, 80))
    assert len(shown(page)) == 3


def test_a_link_that_leaves_the_pad_is_brought_back_to_it(page):
    page.evaluate("location.hash = 'draw=AugH6Af__38A'")  # from (50, 50) to (104856, 50)
    assert len(shown(page)) == 3
    page.click("#pad .eraser")
    stroke(page, (5, 50), (97, 50))
    assert ink(page) < 1000


def test_too_much_ink_for_a_link_is_told(page):
    page.evaluate("location.hash = ''")
    page.click("#pad .link")
    assert page.inner_text("#pad .told") == "Draw something first."
    page.evaluate(
        """() => {
            const canvas = document.querySelector("#pad .paper canvas");
            const area = canvas.getBoundingClientRect();
            canvas.setPointerCapture = () => {};
            const send = (kind, n) => canvas.dispatchEvent(new PointerEvent(kind, { isPrimary: true, button: 0,
                clientX: area.left + (n * 7) % area.width, clientY: area.top + (n * 3) % area.height }));
            send("pointerdown", 0);
            for (let n = 1; n < 4000; n++) send("pointermove", n);
            send("pointerup", 4000);
        }"""
    )
    page.click("#pad .link")
    assert "Too much ink for a link" in page.inner_text("#pad .told")
    assert "#draw=" not in page.url
    assert shown(page)


def test_a_drawing_is_saved_as_a_picture_that_can_be_uploaded(page, tmp_path):
    page.click("#pad button[aria-label=umbrella]")
    found = shown(page)
    with page.expect_download() as download:
        page.click("#pad .save")
    assert download.value.suggested_filename == "drawing.png"
    download.value.save_as(tmp_path / "drawing.png")
    saved = Image.open(tmp_path / "drawing.png")
    assert (saved.size, saved.convert("RGB").getpixel((0, 0))) == ((800, 800), (255, 255, 255))
    page.click("role=tab[name='Upload a drawing']")
    page.set_input_files("#upload input[type=file]", tmp_path / "drawing.png")
    page.wait_for_function("document.querySelector('#results .hits').dataset.drawn === '0'")
    assert sorted(names(page, 3)) == sorted(name for name, _ in found)
    page.click("button[aria-label='Remove Image']")
    page.wait_for_function("document.querySelectorAll('#results .hit').length === 0")


def test_a_broken_upload_is_answered_with_the_reason(page, tmp_path):
    page.click("role=tab[name='Upload a drawing']")
    (tmp_path / "<i>broken.png").write_bytes(b"no picture")
    page.set_input_files("#upload input[type=file]", tmp_path / "<i>broken.png")
    page.wait_for_selector(".toast-body:has-text('<i>broken.png is not a picture')")
    assert page.inner_text("#status").startswith("<i>broken.png is not a picture")
    page.click("button[aria-label='Remove Image']")


def test_own_pictures_are_found_a_moment_later_by_this_visit_alone(page, browser, url, tmp_path):
    page.click("#pad button[aria-label=fish]")
    shown(page)
    page.click("role=tab[name='Add pictures']")
    draw(tmp_path, "my fish.png")
    page.set_input_files("[data-testid='Add pictures-upload-button']", tmp_path / "my fish.png")
    assert "my fish.png" in names(page, 4)
    assert "3 pictures and 1 of yours" in page.inner_text("#facts")
    page.click("#results .hit:has(.yours)")
    page.wait_for_selector("#opened .original")
    assert page.inner_text("#opened h2") == "my fish.png"
    page.click("#opened .close")
    context = browser.new_context()
    other = context.new_page()
    other.set_default_timeout(60_000)
    other.goto(url, wait_until="domcontentloaded")
    other.click("#pad button[aria-label=fish]")
    assert "my fish.png" not in names(other, 3)
    context.close()
    page.click("#forget")
    assert "my fish.png" not in names(page, 3)


def test_another_gallery_is_chosen_and_hostile_names_are_only_shown(page):
    page.click("#pad button[aria-label=fish]")
    shown(page)
    page.click("#gallery input")
    page.click("role=option[name='names']")
    assert names(page, 1) == [HOSTILE]
    page.click("#results .hit")
    page.wait_for_selector("#opened .original")
    assert page.inner_text("#opened h2") == HOSTILE
    page.click("#opened .close")
    assert page.title() == "Draw and find"
    page.click("#gallery input")
    page.click("role=option[name='photos']")
    assert len(names(page, 3)) == 3


def test_the_number_of_results_is_chosen(page):
    page.click("#pad button[aria-label=fish]")
    shown(page)
    page.fill("input[type=number]", "1")
    names(page, 1)
    page.fill("input[type=number]", "12")
    names(page, 3)


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.click("#pad button[aria-label=cat]")
    shown(page)
    page.wait_for_selector("#why svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = page.locator("#pad .paper").bounding_box()
    assert paper["width"] > 290
    assert page.locator("#results").bounding_box()["y"] > paper["y"] + paper["height"]
    page.click("#results .hit")
    page.wait_for_selector("#opened .original")
    opened = page.locator("#opened").bounding_box()
    assert opened["x"] >= 0 and opened["x"] + opened["width"] <= 390
    page.click("#opened .close")
    page.set_viewport_size({"width": 1200, "height": 900})


def test_the_explanation_is_behind_a_tab(page):
    page.click("role=tab[name='Explain']")
    page.wait_for_selector("text=Deep Sketch Hashing")
    page.click("role=tab[name='Find']")


def test_nothing_is_asked_of_other_servers(page, requests, url):
    asked = [address for address in requests if not address.startswith(("data:", "blob:"))]
    assert len(asked) > 10
    assert [address for address in asked if not address.startswith(url)] == []
