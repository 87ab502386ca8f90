"""Opens pages from disk in headless Chromium: `python scripts/_browse.py SITE LOOKS PAGE ...`.

SITE is the folder of the built site, LOOKS a folder for screenshots, PAGE a page that is not of the
site. Each page must load all that it asks for, from disk alone, say nothing in the console, fit a
phone, and be dark where the reader's system is. The site's search must find `reptile`. Exit 1 names
each page that does not.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PHONE, DESK = (390, 844), (1280, 900)
"""Width and height of a window, in CSS pixels."""
LOOKED_AT = ("index.html", "tutorials/first.html", "what-decides.html", "memory.html")
"""Pages of the site whose screenshots are kept."""

MISSING = "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80))"
ELSEWHERE = """return performance.getEntriesByType('resource').map(e => e.name)
    .filter(name => !name.startsWith('file:') && !name.startsWith('data:'))"""
TOO_WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
BRIGHTNESS = """const rgb = getComputedStyle(document.body).color.match(/[0-9.]+/g).map(Number)
    return (rgb[0] + rgb[1] + rgb[2]) / 3"""
"""The mean of red, green and blue of the text, 0 to 255."""


def browser() -> webdriver.Chrome:
    """Chromium without a window, that asks nobody anything by itself."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("headless=new", "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    if os.geteuid() == 0:  # Chromium refuses to put root into its sandbox
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def look(driver: webdriver.Chrome, size: tuple[int, int], scheme: str) -> None:
    """The next pages are shown at this size, to a reader whose system is `light` or `dark`."""
    width, height = size
    shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def faults(driver: webdriver.Chrome, page: Path) -> Iterator[str]:
    """What is wrong with a page, on a phone in the light and at a desk in the dark."""
    look(driver, PHONE, "light")
    driver.get(page.as_uri())
    yield from (f"the console says: {entry['message']}" for entry in driver.get_log("browser"))
    yield from (f"the picture {source} is not there" for source in driver.execute_script(MISSING))
    yield from (f"it loads {name}" for name in driver.execute_script(ELSEWHERE))
    if (wider := driver.execute_script(TOO_WIDE)) > 0:
        yield f"it is {wider} px wider than a phone of {PHONE[0]} px"
    if driver.execute_script(BRIGHTNESS) > 100:
        yield "its text is bright for a reader who asks for a light page"
    look(driver, DESK, "dark")
    if driver.execute_script(BRIGHTNESS) < 155:
        yield "its text is dark for a reader who asks for a dark page"


def found(driver: webdriver.Chrome, site: Path, word: str) -> list[str]:
    """Names of the pages that the site's search finds."""
    driver.get(f"{(site / 'search.html').as_uri()}?q={word}")
    results = (By.CSS_SELECTOR, "#search-results li a")
    with contextlib.suppress(TimeoutException):
        WebDriverWait(driver, 20).until(lambda driver: driver.find_elements(*results))
    links = [each.get_attribute("href") or "" for each in driver.find_elements(*results)]
    return sorted({link.split("?")[0].rsplit("/", 1)[-1] for link in links})


def screenshots(driver: webdriver.Chrome, page: Path, looks: Path) -> None:
    """A picture of a page at a desk and on a phone, in light and dark."""
    for size, kind in ((DESK, "desk"), (PHONE, "phone")):
        for scheme in ("light", "dark"):
            look(driver, size, scheme)
            driver.get(page.as_uri())
            driver.save_screenshot(str(looks / f"{page.stem}-{kind}-{scheme}.png"))


def main(site: Path, looks: Path, *others: Path) -> int:
    """Opens all pages. Returns how many have a fault."""
    looks.mkdir(parents=True, exist_ok=True)
    pages = [*sorted(site.rglob("*.html")), *others]
    wrong = 0
    driver = browser()
    try:
        for page in pages:
            if told := list(faults(driver, page)):
                wrong += 1
                print(f"{page}:", *told, sep="\n  ")
        if not {"learners.html", "meta.html"} <= set(names := found(driver, site, "reptile")):
            wrong += 1
            print(f"search.html: `reptile` is found in {names or 'no page'}")
        for page in (*(site / name for name in LOOKED_AT), *others):
            screenshots(driver, page, looks)
    finally:
        driver.quit()
    print(f"{len(pages)} pages in Chromium, {wrong} with faults; pictures of some in {looks}")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(*(Path(each).resolve() for each in sys.argv[1:]))))
