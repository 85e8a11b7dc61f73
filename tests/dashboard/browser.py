"""Chromium without a screen, over its DevTools protocol: what a page shows and asks for.

A few calls over one WebSocket, so no driver and no library of its own is needed.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websockets

WAIT_S = 30.0
PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0"]


class Page:
    """One page of one browser. Make it with `async with`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        # Every URL that was asked for, WebSockets too, and every error of console and network.
        self.requests: list[str] = []
        self.errors: list[str] = []

    async def __aenter__(self) -> Page:
        assert PROGRAM is not None
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [PROGRAM, *FLAGS, *root, f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._socket = await websockets.connect(await self._address(), max_size=2**26)
        except BaseException:
            self._process.kill()
            raise
        self._reader = asyncio.create_task(self._read())
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await self._socket.close()
        self._process.terminate()
        self._process.wait(WAIT_S)

    async def _address(self) -> str:
        port_file = self._folder / "DevToolsActivePort"
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            if port_file.exists() and "\n" in port_file.read_text():
                port = int(port_file.read_text().splitlines()[0])
                with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=WAIT_S) as answer:
                    for target in json.load(answer):
                        if target["type"] == "page":
                            return str(target["webSocketDebuggerUrl"])
            await asyncio.sleep(0.05)
        raise RuntimeError("Chromium did not start")

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
            else:
                self._note(message["method"], message["params"])

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(told["url"])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.errors.append(" ".join(str(part.get("value", part.get("description")))
                                        for part in told["args"]))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol. Raises RuntimeError with its error."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(
            {"id": number, "method": method, "params": parameters}))
        message = await asyncio.wait_for(answer, WAIT_S)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    async def open(self, url: str) -> None:
        """Go to a page; returns when it is there, not when it has everything it asks for."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page. Raises RuntimeError when it throws."""
        done = await self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                               awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    async def until(self, expression: str, timeout_s: float = WAIT_S) -> Any:
        """The expression's value as soon as it is true. Raises AssertionError if it never is."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            value = await self.evaluate(expression)
            if value:
                return value
            if time.monotonic() > deadline_s:
                shown = await self.evaluate("document.body.innerText")
                raise AssertionError(f"never true: {expression}\n{self.errors}\n{shown}")
            await asyncio.sleep(0.05)

    async def text(self, selector: str) -> str:
        """What the first such element shows."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def shows(self, selector: str, wanted: str) -> None:
        """Wait until the first such element shows just this; the page draws once a frame, so what
        was done shows a moment later. Raises AssertionError if it never does."""
        await self.until(f"document.querySelector({json.dumps(selector)})?.innerText"
                         f" === {json.dumps(wanted)}")

    async def press(self, key: str) -> None:
        """Press and release a key."""
        typed = {"text": key} if len(key) == 1 else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **typed)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def size(self, width: int, height: int, phone: bool = False) -> None:
        """The size of the window in CSS pixels; a phone has a touch screen and sharp pixels."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=2 if phone else 1, mobile=phone)

    async def prefer(self, colours: str) -> None:
        """The system's colours: "light" or "dark"."""
        await self.call("Emulation.setEmulatedMedia",
                        features=[{"name": "prefers-color-scheme", "value": colours}])

    async def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        shown = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shown["data"]))
