"""What a page of the site costs its reader: kilobytes, requests, milliseconds to the first paint.

    make book && python -m benchmarks.site

Every page is opened in a headless Chromium with an empty cache, from a server on this machine that
does not compress, so the milliseconds are those of the browser and not of a network; the last
column is what a reader's line carries where the server compresses text, as most do. Pages take
turns, and the median over the rounds is given. Formulas are set after the first paint.
"""

import argparse
import gzip
import shutil
import statistics
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks import timing
from tools import source

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TEXT = {".html", ".css", ".js", ".svg", ".json", ".txt"}

SEEN = """
const done = arguments[arguments.length - 1];
const answer = () => done({
    paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null,
    ready: performance.now(),
    urls: [location.href, ...performance.getEntriesByType('resource').map(r => r.name)],
});
if (!document.querySelector('script[src*=mathjax]')) answer();
const wait = () => window.MathJax?.startup?.promise
    ? MathJax.startup.promise.then(answer) : setTimeout(wait, 20);
wait();
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


def open_browser(profile: str):
    """A headless Chromium without a cache. Raises RuntimeError where there is none."""
    from selenium import webdriver

    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        raise RuntimeError("no chromium and chromedriver on PATH; apt install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(120)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    return browser


def weight(site: Path, urls: list[str]) -> dict[str, float]:
    """Kilobytes of the files behind some addresses, as they are and compressed."""
    plain = packed = count = 0
    for url in sorted(set(urls)):
        path = site / unquote(urlsplit(url).path).lstrip("/")
        if not path.is_file():  # data: and about:
            continue
        content = path.read_bytes()
        count += 1
        plain += len(content)
        packed += len(gzip.compress(content, 6)) if path.suffix in TEXT else len(content)
    return {"files": count, "kB": plain / 1e3, "kB_compressed": packed / 1e3}


def measure(sites: dict[str, Path], pages: list[str], rounds: int) -> dict[str, dict[str, dict]]:
    """Build -> page -> its weight, milliseconds to the first paint and to the last formula."""
    seen: dict[str, dict[str, list[dict]]] = {
        build: {page: [] for page in pages} for build in sites
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, ExitStack() as stack:
        hosts = {build: stack.enter_context(serve(folder)) for build, folder in sites.items()}
        browser = open_browser(profile)
        stack.callback(browser.quit)
        for _ in range(rounds):
            for page in pages:
                for build, host in hosts.items():
                    browser.get("about:blank")
                    browser.get(f"{host}/{page}.html")
                    seen[build][page].append(browser.execute_async_script(SEEN))
    return {
        build: {
            page: {
                **weight(sites[build], found[-1]["urls"]),
                "paint_ms": statistics.median(one["paint"] for one in found if one["paint"]),
                "formulas_ms": statistics.median(one["ready"] for one in found),
            }
            for page, found in visits.items()
        }
        for build, visits in seen.items()
    }


@contextmanager
def serve(folder: Path):
    """The address of a server of a folder."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def main(argv: list[str]) -> Path:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=SITE, help="the built pages")
    parser.add_argument("--against", type=Path, help="another build of them, for comparison")
    parser.add_argument("--pages", nargs="*", help="default: every page")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    if not (options.site / "index.html").exists():
        parser.error(f"there are no pages in {options.site}; type: make book")
    pages = options.pages or list(source.pages())
    sites = {"before": options.against} if options.against else {}
    found = measure(sites | {"now": options.site}, pages, options.rounds)
    asked_for = f"python -m benchmarks.site --rounds {options.rounds}"
    if options.against:
        asked_for += " --against a-build-before"
    if options.pages:
        asked_for += " --pages " + " ".join(pages)
    return timing.save("site", asked_for, options.rounds, found)


if __name__ == "__main__":
    print(main(sys.argv[1:]))
