"""Headless Chromium without a driver: a harness page loads the page under test in a frame, acts, and leaves a
report."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from html import unescape
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
HARNESS = """<!doctype html><meta charset="utf-8"><pre id="report">not run</pre><iframe id="f" width="WIDTH" height="900"></iframe><script>
const errors = [], f = document.getElementById("f");
const say = (e) => errors.push(String(e && (e.message || e.violatedDirective || e.reason) || e));
f.addEventListener("load", async () => {
  const w = f.contentWindow, d = f.contentDocument;
  w.addEventListener("error", say); w.addEventListener("unhandledrejection", say); d.addEventListener("securitypolicyviolation", say);
  w.console.error = say; w.alert = () => say("alert"); w.onbeforeunload = () => say("left the page");
  let result = null;
  try { result = await (async (w, d) => { SCRIPT })(w, d); } catch (e) { say(e); }
  await new Promise((done) => setTimeout(done, 50));
  document.getElementById("report").textContent = JSON.stringify({result, errors});
});
f.src = "PAGE";
</script>"""


def binary() -> str | None:
    """A Chromium: `CHROMIUM` or one on PATH; None where there is none."""
    given = os.environ.get("CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def chromium(*args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Chromium headless. A container has neither a sandbox nor a large /dev/shm."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    return subprocess.run(
        [str(binary()), *flags, *args], capture_output=True, text=True, timeout=timeout, check=False
    )


def visit(page: Path, script: str, width: int = 1400) -> tuple[Any, list[str]]:
    """Load `page`, run the body of an async function of (window, document) in it, so many pixels wide; returns
    its value and all errors.

    Errors are uncaught exceptions, console errors, policy violations, alerts, and what Chromium itself
    complains about.
    """
    harness = page.with_name("harness.html")
    text = HARNESS.replace("WIDTH", str(width)).replace("PAGE", page.name).replace("SCRIPT", script)
    harness.write_text(text, encoding="utf-8")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(page.parent))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/harness.html"
        done = chromium("--virtual-time-budget=20000", "--dump-dom", url)
    finally:
        server.shutdown()
        server.server_close()
    found = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.S)
    if not found or found[1] == "not run":
        raise AssertionError(f"the page did not load: {done.stderr[-2000:]}")
    report = json.loads(unescape(found[1]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "favicon" not in line]
    return report["result"], report["errors"] + console
