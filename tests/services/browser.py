"""A real Chromium without a window, told what to do through its own DevTools protocol."""

import base64
import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import websocket


class Browser:
    """One tab. Its console errors and violations of the content security policy are kept in `troubles`."""

    def __init__(self, folder: Path) -> None:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += ["--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        port = next(found[1] for line in self._process.stderr if (found := re.search(r"ws://127.0.0.1:(\d+)/", line)))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(tab for tab in json.load(answer) if tab["type"] == "page")
        self._socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=30)
        self._count = 0
        self.troubles: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **values: object) -> dict:
        """Send a command and return its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": values}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            if answer["method"] in {"Log.entryAdded", "Runtime.exceptionThrown"}:
                self.troubles.append(json.dumps(answer["params"]))

    def js(self, expression: str) -> object:
        """Return the value of an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> float:
        """Open an address and return the milliseconds until it was loaded."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        colours = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=colours)
        self.ask("Page.navigate", url=address)
        self.wait("document.readyState == 'complete' && performance.timing.loadEventEnd > 0")
        return float(self.js("performance.getEntriesByType('navigation')[0].loadEventEnd"))

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        for _ in range(200):
            if self.js(expression):
                return
            time.sleep(0.05)
        raise AssertionError(f"not so after 10 s: {expression}")

    def pointer(self, kind: str, x: float, y: float) -> None:
        """Move, press or release the pointer at a point of the window."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def key(self, name: str) -> None:
        """Press a key."""
        code = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36}[name]
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def picture(self, path: Path) -> Path:
        """Take a picture of the window."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
        return path

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=10)
        self._process.stderr.close()
