"""Labs 03, 04 and 05, and a small panel, in a real JupyterLab in a real browser.

Run with `pytest -m browser`; needs Chromium (Debian: chromium) and playwright.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from browser import FLAGS, chromium, free_port

from minillama.lab import build

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

SMALL = "small_panel.ipynb"
SMALL_CELLS = (
    """import plotly.graph_objects as go
from minillama.lab import Figure, Panel, Prediction, Slider

def write(settings):
    yield f"written at {settings['temp']}"

controls = [Slider("temp", "temperature", 0.0, 2.0, 0.1, 1.0)]
Panel(controls, lambda settings: Figure(go.Figure(), "no trace"), write).show()""",
    'Prediction("99", "speed", "How fast?", "tok/s").ask()',
    'print("the end", "of it")',
)
IDLE = ".jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status=idle]"
START_SECONDS = 60
CELLS_SECONDS = 300


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab with its own settings and a copy of the learners' notebooks."""
    home = tmp_path_factory.mktemp("jupyter")
    for source in build.sources():
        shutil.copy(build.learner_path(source), home)
    small = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in SMALL_CELLS])
    small.metadata = {"kernelspec": build.KERNEL, "language_info": {"name": "python"}}
    nbformat.write(small, home / SMALL)
    settings = home / "settings"
    for name, content in {
        "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # all cells, not those in view
        "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
        "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    }.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    port, token = free_port(), secrets.token_hex(16)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_NUMPY_")}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    environment |= {"PYTHONPATH": str(build.LABS.parent), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home}"]
    log = (home / "jupyter.log").open("w")
    server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None and time.monotonic() < deadline, (home / "jupyter.log").read_text()
                time.sleep(0.3)
        yield f"{address}/lab/tree/{{}}?token={token}&reset"  # without an earlier test's notebook next to it
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def run_all_cells(page: "Page") -> None:
    """Wait for the kernel of the open notebook, and start all cells."""
    for ready in (".jp-NotebookPanel .jp-Cell", ".jp-NotebookPanel-toolbar >> text=Python 3", IDLE):
        page.wait_for_selector(ready, timeout=START_SECONDS * 1000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def test_slider_moves_the_bars(jupyter: str, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(jupyter.format("04_sampling.ipynb"))
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=START_SECONDS * 1000)
        run_all_cells(page)

        def title() -> str:
            return page.locator(".js-plotly-plot .gtitle").first.text_content() or ""

        page.wait_for_selector(".widget-slider .noUi-handle", timeout=CELLS_SECONDS * 1000)
        page.wait_for_selector(".js-plotly-plot .gtitle", timeout=CELLS_SECONDS * 1000)
        # The end of the notebook: its score. Until then the kernel is busy and a slider would wait.
        page.wait_for_selector("text=0 of 4 solved", timeout=CELLS_SECONDS * 1000)
        before = title()
        assert "tokens may follow" in before and not before.startswith("1 of")

        # A comparison without a prediction asks first; its figure comes with the answer.
        assert page.locator(".widget-html-content figure img").count() == 0
        page.get_by_placeholder("a number").last.fill("12")
        page.get_by_role("button", name="Record").last.click()
        page.wait_for_selector(".widget-html-content figure img", timeout=CELLS_SECONDS * 1000)
        page.locator(".widget-html-content figure img").last.scroll_into_view_if_needed()
        page.screenshot(path=str(tmp_path / "prediction.png"))

        handle = page.locator(".widget-slider:has-text('--temp') .noUi-handle").first
        handle.focus()
        handle.press("Home")  # temperature 0: greedy, so one token is left
        page.wait_for_function(
            "document.querySelector('.js-plotly-plot .gtitle').textContent.startsWith('1 of')", timeout=60_000
        )

        page.get_by_role("button", name="Start").first.click()
        written = page.locator(".widget-html-content div", has_text="Once upon a time").first
        written.wait_for(timeout=CELLS_SECONDS * 1000)
        page.wait_for_function(
            "[...document.querySelectorAll('.widget-html-content div')].some(d => d.textContent.length > 80)",
            timeout=CELLS_SECONDS * 1000,
        )
        page.screenshot(path=str(tmp_path / "lab04.png"))
        assert not page.locator("text=Traceback").count()
        assert problems == []
        browser.close()


OVERLAPS = """plots => plots.filter(plot => {
    const [title, legend] = ['.gtitle', '.legend'].map(name => plot.querySelector(name)?.getBoundingClientRect());
    return title && legend && title.bottom > legend.top + 2 && title.top < legend.bottom && title.right > legend.left;
}).length"""


def test_figures_need_no_network_and_fit_a_narrow_window(jupyter: str, tmp_path: Path) -> None:
    """Lab 03 in a window of 1000 pixels, without any other host."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1000, "height": 12_000})
        elsewhere: list[str] = []

        def route(request: object) -> None:
            url = request.request.url  # type: ignore[attr-defined]
            if url.startswith(("http://127.0.0.1", "data:", "blob:")):
                request.continue_()  # type: ignore[attr-defined]
            else:
                elsewhere.append(url)
                request.abort()  # type: ignore[attr-defined]

        page.route("**/*", route)
        page.goto(jupyter.format("03_tokens_to_logits.ipynb"))
        run_all_cells(page)
        page.wait_for_selector("text=0 of 5 solved", timeout=CELLS_SECONDS * 1000)
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .gtitle').length == 4", timeout=60_000)
        page.screenshot(path=str(tmp_path / "lab03.png"))
        assert page.eval_on_selector_all(".js-plotly-plot", OVERLAPS) == 0, "a legend over a title"
        assert page.locator(".jp-OutputArea img[src^='data:image/svg']").count() == 0, (
            "the interactive figure is preferred"
        )
        assert elsewhere == []
        assert not page.locator("text=Traceback").count()
        browser.close()


def test_sweep_is_drawn_while_it_runs_and_stops(jupyter: str) -> None:
    """Lab 05: the curve gets points during the measurement, and Stop ends it."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1700})
        page.goto(jupyter.format("05_prefill_decode_cache.ipynb"))
        run_all_cells(page)
        page.wait_for_selector("text=0 of 5 solved", timeout=CELLS_SECONDS * 1000)
        cell = page.locator(".jp-Cell:has(button:has-text('Start'))").first
        cell.locator("select").nth(0).select_option(index=1)  # the big model: there is time to press Stop
        cell.get_by_role("button", name="Start").click()
        cell.locator("text=random weights f16").first.wait_for(timeout=CELLS_SECONDS * 1000)
        cell.locator("text=depth 0:").wait_for(timeout=CELLS_SECONDS * 1000)
        cell.get_by_role("button", name="Stop").click()
        cell.locator("text=● stopped").wait_for(timeout=60_000)
        assert not cell.locator("text=depth 1000:").count()
        assert "random weights" in " ".join(cell.locator(".legendtext").all_text_contents())
        browser.close()


NO_NOTE = """() => {
    const notes = [...document.querySelectorAll('.minillama-gone')];
    return notes.length == 2 && notes.every(note => note.offsetParent === null);
}"""
# While Jupyter writes the file, a read of it may be answered by an error, which has no content.
SAVED = f"""fetch('/api/contents/{SMALL}').then(answer => answer.json())
    .then(file => 'widgets' in (file.content?.metadata ?? {{}}))"""


def test_controls_without_a_kernel_say_so(jupyter: str, tmp_path: Path) -> None:
    """After a restart, and in a notebook that is opened with stored widgets; a live kernel's page has no such note."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 1300})
        note, start = page.locator(".minillama-gone"), page.locator(".widget-button", has_text="Start")

        def choose(menu: str, line: str) -> None:
            page.get_by_role("menuitem", name=menu, exact=True).click()
            page.locator(".lm-Menu-itemLabel", has_text=line).first.click()

        def run_and_start() -> None:
            run_all_cells(page)
            page.locator("text=the end of it").wait_for(timeout=CELLS_SECONDS * 1000)
            start.click()
            page.locator("text=written at 1").wait_for(timeout=CELLS_SECONDS * 1000)
            page.wait_for_function(NO_NOTE, timeout=START_SECONDS * 1000)

        def is_told() -> None:
            for each in (note.first, note.last):
                each.wait_for(timeout=START_SECONDS * 1000)
                assert "the kernel that made them has ended" in each.inner_text()
            for each in (start, page.locator(".widget-button", has_text="Record")):
                assert each.evaluate("button => getComputedStyle(button).pointerEvents") == "none"

        page.goto(jupyter.format(SMALL))
        run_and_start()
        page.keyboard.press("Control+s")
        page.wait_for_function(SAVED, timeout=START_SECONDS * 1000)
        page.screenshot(path=str(tmp_path / "live.png"))
        choose("Kernel", "Restart Kernel")
        page.locator(".jp-Dialog button.jp-mod-accept").click()
        is_told()
        page.screenshot(path=str(tmp_path / "restarted.png"))
        choose("Kernel", "Shut Down Kernel")
        page.wait_for_selector(".jp-NotebookPanel-toolbar >> text=No Kernel", timeout=START_SECONDS * 1000)
        page.goto(jupyter.format(SMALL))
        is_told()
        page.screenshot(path=str(tmp_path / "opened.png"))
        run_and_start()
        browser.close()
