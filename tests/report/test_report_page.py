"""The report's page in a real browser, opened from disk: what a reader does there, by mouse and by keyboard."""

from __future__ import annotations

import os
import shutil

import pytest

from .dumps import MARKUP, two_runs, write_groups, write_task_run

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from verl_twgrpo.report.reading import read_runs
    from verl_twgrpo.report.site.build import Site

    folder = tmp_path_factory.mktemp("page")
    runs = read_runs(two_runs(folder))
    Site(folder / "out", runs, f"verl-twgrpo report {MARKUP}").update(runs, [(f"{MARKUP}.png", MARKUP)])
    return folder / "out"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, BROWSERS)), own if os.path.exists(own) else None)
        if found is None:
            pytest.skip("no Chromium: `make browser` installs one")
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        with playwright.chromium.launch(executable_path=found, args=sandbox) as launched:
            yield launched


@pytest.fixture
def open_page(browser, site):
    """``open_page("#groups", width=390)``: the page; whatever it says on the console fails the test."""
    said, pages = [], []

    def opened(place="", width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(5000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((site / "index.html").as_uri() + place)
        page.wait_for_selector("main[data-view]")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        assert page.evaluate("window.hacked") is None
        page.close()
    assert said == []


def test_the_overview_draws_every_run_and_says_what_differs(open_page):
    page = open_page()
    titles = page.locator(".chart figcaption").all_inner_texts()
    assert "Reward, mean" in titles and "Seconds by phase (s)" in titles
    assert page.locator(".chart").first.locator(".u-series").count() == 3  # step, and a curve a run
    plot = page.locator(".chart .u-over").first
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 50)
    assert page.locator(".chart").first.locator(".u-value").all_inner_texts() == ["3", "1", "1"]
    settings = page.locator("table.settings tbody tr").all_inner_texts()
    assert settings == ["algorithm.tw_grpo.alpha\t0.7\t0"] or settings == ["algorithm.tw_grpo.alpha\t0.7\t0.0"]
    assert MARKUP in page.locator("main").inner_text()


def test_groups_are_filtered_sorted_and_opened_by_keyboard(open_page):
    page = open_page("#groups")
    rows = page.locator("table.groups tbody tr")
    assert rows.count() == 18
    page.select_option("[data-filter=run]", "0")
    assert rows.count() == 9
    for what, count in (("wrong", 3), ("no spread", 6), ("unparsed", 3), ("all", 9)):
        page.select_option("[data-filter=what]", what)
        assert rows.count() == count, what
    page.select_option("[data-filter=source]", "star")
    assert rows.count() == 3
    page.select_option("[data-filter=source]", "")
    page.select_option("[data-filter=task]", "multiple_choice")
    page.fill("[data-filter=words]", "question 1?")
    assert rows.count() == 3
    page.fill("[data-filter=words]", "")
    page.click("th[data-sort=mean] button")
    assert rows.first.locator("td").nth(3).inner_text() == "2"
    page.click("th[data-sort=mean] button")
    assert rows.first.locator("td").nth(3).inner_text() == "0"
    page.locator("body").press("Escape")
    for key in ("j", "ArrowDown", "k"):
        page.keyboard.press(key)
    assert page.locator("tr.cursor").get_attribute("data-key") == "0/1/2"
    page.keyboard.press("Enter")
    page.wait_for_selector("main[data-view=group]")
    assert page.url.endswith("#step=1&group=2")
    page.keyboard.press("j")
    page.wait_for_selector("h3:has-text('step 2, group 2')")
    page.keyboard.press("Escape")
    page.wait_for_selector("main[data-view=groups]")
    assert page.locator("tr.cursor").get_attribute("data-key") == "0/2/2"


def test_a_deep_link_opens_a_group_with_frames_signals_and_another_run_beside_it(open_page):
    page = open_page("#step=2&group=0")
    assert page.locator("article").count() == 3
    assert page.locator(".strip small").all_inner_texts() == [
        "0.00 s · t 0",
        "1.00 s · t 0",
        "2.00 s · t 4",
        "3.00 s · t 4",
    ]
    assert page.locator("article").first.locator(".text").inner_text().startswith(f"<think>{MARKUP}</think>")
    signals = [text.strip() for text in page.locator(".signals label").all_inner_texts()]
    assert [text[:-1] for text in signals] == [
        *("weight", "D_t", "entropy", "advantage", "log-prob", "log-prob − rollout", "|d| blank")
    ]
    depth = "document.querySelector('.text i:last-child').style.getPropertyValue('--i')"
    first = page.evaluate("document.querySelector('.text i').style.getPropertyValue('--i')")
    assert (first, float(page.evaluate(depth))) == ("0.000", pytest.approx(1.0))
    page.keyboard.press("4")
    assert page.locator(".group").get_attribute("data-signal") == "advantage"
    assert page.evaluate("document.querySelector('.text i').style.getPropertyValue('--i')") == "1.000"
    page.hover(".text i:nth-child(3)")
    assert "advantage\n0.25" in page.locator("#tip").inner_text()
    page.click(".strip button >> nth=1")
    page.keyboard.press("ArrowRight")
    assert "frame 3 of 4" in page.locator("dialog").inner_text()
    page.keyboard.press("Escape")
    page.select_option("[data-filter=beside]", "1/2/0")
    page.wait_for_selector(".parts.two")
    assert page.locator("article").count() == 6
    page.goto(page.url.split("#")[0] + "#step=1&group=1")
    page.wait_for_selector(".videos .note")
    assert "No frames" in page.locator(".videos").inner_text()


def test_validation_says_when_a_question_became_right_and_when_it_fell_back(open_page):
    page = open_page("#validation")
    rows = page.locator("table.questions tr.q")
    assert [row.split("\t")[2:] for row in rows.all_inner_texts()] == [
        ["✗✓", "step 2", ""],
        ["✓✗", "", "step 2"],
        ["✗✗", "", ""],
    ]
    page.select_option("[data-filter=course]", "fell back")
    assert rows.count() == 1
    page.locator(".text-button").click()
    assert MARKUP in page.locator("tr.more").inner_text()
    assert page.locator("table.kinds tbody tr").first.inner_text().split("\t")[1:] == ["3", "33.3 %", "33.3 %"]


def test_measures_of_other_tasks_stand_beside_each_other_by_validation(browser, tmp_path):
    from verl_twgrpo.report.reading import read_runs
    from verl_twgrpo.report.site.build import Site

    runs = read_runs([write_task_run(tmp_path / "run")])
    Site(tmp_path / "out", runs, "verl-twgrpo report run").update(runs, [])
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "out" / "index.html").as_uri() + "#validation")
    page.wait_for_selector("table.measures")
    heads = page.locator("table.measures thead").inner_text().strip().split("\t")
    rows = [row.split("\t") for row in page.locator("table.measures tbody tr").all_inner_texts()]
    page.close()
    assert said == []
    assert heads == ["data source", "task", "measure", "step 0", "step 3"]
    (miou,) = [row for row in rows if row[1:3] == ["temporal_grounding", "mIoU"]]
    assert [cell.split(" ")[0] for cell in miou[3:]] == ["0.300", "0.500"]
    assert {row[1] for row in rows} == {"temporal_grounding", "counting"}


@pytest.mark.parametrize("place", ["#overview", "#groups", "#step=2&group=0", "#validation"])
def test_nothing_is_wider_than_a_phone(open_page, place):
    page = open_page(place, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_watched_run_shows_a_new_step_while_the_page_is_open(browser, tmp_path):
    from verl_twgrpo.report.reading import read_runs
    from verl_twgrpo.report.site.build import Site
    from verl_twgrpo.report.watch import serve

    group = {"id": "q", "question": "?", "truth": "A", "texts": ["<answer>A</answer>"] * 2, "rewards": [2.0, 0.0]}
    run = tmp_path / "run"
    write_groups(run, 1, [group])
    site = Site(tmp_path / "out", read_runs([run]), "command", live=True)
    site.update(read_runs([run]))
    with serve(tmp_path / "out") as address:
        page = browser.new_page()
        page.goto(f"{address}#groups")
        page.wait_for_selector("table.groups tbody tr")
        write_groups(run, 2, [group])
        site.update(read_runs([run]))
        page.wait_for_selector("table.groups tbody tr >> nth=1", timeout=8000)
        page.close()
