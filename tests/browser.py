"""A headless Chromium, driven by the protocol of its developer tools."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PATIENCE = 120.0  # seconds: the machine may be busy
WIDTH, HEIGHT = 800, 400  # of a page, pixels; small, because the processor draws it
FLAGS = (
    "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --disable-background-networking"
)


def wait_until(condition: Callable[[], Any]) -> Any:
    """What `condition` returns, as soon as that is true."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f"this did not come true in {PATIENCE:g} s"
        time.sleep(0.05)
    return value


class Browser:
    """One connection to a running Chromium.

    requested: all addresses that its pages and their workers have asked. downloads: the folder of files that they save.
    """

    def __init__(self, address: str, downloads: Path) -> None:
        from websockets.sync.client import connect

        self._socket, self._numbers = connect(address, max_size=None, ping_interval=None), itertools.count()
        self.requested: list[str] = []
        self.downloads = downloads

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """The result of a method of the protocol."""
        number = next(self._numbers)
        self._send(number, method, session, parameters)
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _send(self, number: int, method: str, session: str | None, parameters: dict) -> None:
        to = {"sessionId": session} if session else {}
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters, **to}))

    def _receive(self) -> dict:
        message = json.loads(self._socket.recv(PATIENCE))
        parameters = message.get("params", {})
        if message.get("method") == "Target.attachedToTarget":  # a worker, which waits until it is watched
            for method in ("Network.enable", "Runtime.runIfWaitingForDebugger"):
                self._send(next(self._numbers), method, parameters["sessionId"], {})
        elif message.get("method") == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif message.get("method") == "Network.webSocketCreated":
            self.requested.append(parameters["url"])
        return message

    def open(self, url: str) -> Tab:
        target = self.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        tab.call("Network.enable")
        tab.call("Emulation.setFocusEmulationEnabled", enabled=True)  # else only the last page gets keys
        tab.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)
        tab.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        tab.call("Page.navigate", url=url)
        wait_until(lambda: tab.run("document.readyState + location.protocol") == "completehttp:")
        return tab


class Tab:
    """A page in its own window."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session

    def call(self, method: str, **parameters) -> dict:
        return self._browser.call(method, self._session, **parameters)

    def run(self, script: str) -> Any:
        """The value of an expression in JavaScript, or what it promises."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def press(self, label: str, role: str = "button, label") -> None:
        """Click a button or a checkbox, or what else has this role, by its text."""
        find = (
            f"[...document.querySelectorAll('{role}')].find(e => e.textContent.trim() == '{label}' && e.offsetParent)"
        )
        wait_until(lambda: self.run(f"!!{find}"))
        self.run(f"{find}.click()")

    def choose(self, before: str, after: str) -> None:
        """Choose another entry of the list that shows `before`."""
        shown = f"[...document.querySelectorAll('input')].find(field => field.value == '{before}')"
        self.run(f"{shown}.scrollIntoView(), {shown}.click()")  # it lists its entries where it is seen
        self.press(after, role="[role=option]")
        self._settle()

    def fill(self, before: str, after: str) -> None:
        """Replace the text of the field that holds `before`."""
        field = f"[...document.querySelectorAll('input')].findLast(field => field.value == '{before}')"
        self.run(f"{field}.focus(), document.activeElement.select()")
        self.call("Input.insertText", text=after)
        self.run("document.activeElement.blur()")
        wait_until(lambda: self.run(f"[...document.querySelectorAll('input')].some(field => field.value == '{after}')"))
        self._settle()

    def _settle(self) -> None:
        """Let the page send a control's new value: viser keeps it for 50 ms, and loses it if another one follows."""
        self.run("new Promise(wake => setTimeout(wake, 60))")

    def drop(self, files: dict[str, bytes], on: str) -> None:
        """Drop files on the element with this text."""
        content = {name: base64.b64encode(data).decode() for name, data in files.items()}
        self.run(f"""(() => {{
            const data = new DataTransfer();
            for (const [name, content] of Object.entries({json.dumps(content)}))
                data.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name));
            [...document.querySelectorAll('div')].findLast(e => e.textContent.trim() == '{on}')
                .dispatchEvent(new DragEvent('drop', {{dataTransfer: data, bubbles: true}}));
        }})()""")

    def upload(self, file: Path, accept: str) -> None:
        """Choose a file for the button whose files have these types."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=f"input[accept='{accept}']")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def drag(self, start: tuple[float, float], *, by: tuple[float, float], moves: int = 8) -> None:
        """Press the mouse at `start`, move it, as often as the page draws a frame, and let it go."""
        x, y = start
        self.mouse("mousePressed", start, buttons=1)
        for move in range(1, moves + 1):
            self.mouse("mouseMoved", (x + by[0] * move / moves, y + by[1] * move / moves), buttons=1)
            self.run("new Promise(requestAnimationFrame).then(() => 0)")
        self.mouse("mouseReleased", (x + by[0], y + by[1]))

    def click(self, place: tuple[float, float]) -> None:
        self.mouse("mousePressed", place, buttons=1)
        self.mouse("mouseReleased", place)

    def mouse(self, kind: str, place: tuple[float, float], buttons: int = 0) -> None:
        x, y = place
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1)

    def picture(self) -> np.ndarray:
        """A screenshot, `[H, W, 3]` uint8."""
        png = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with its files in `folder`, and downloads in `folder`/downloads. Skips the test if there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    (downloads := folder / "downloads").mkdir()
    command = [program, *FLAGS.split(), "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            place = folder / "DevToolsActivePort"
            wait_until(lambda: place.exists() and "/" in place.read_text())
            port, path = place.read_text().split("\n")
            browser = Browser(f"ws://127.0.0.1:{port}{path}", downloads)
            browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))  # of many files
            yield browser
        finally:
            process.terminate()
