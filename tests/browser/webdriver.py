"""A browser, as far as these tests need one, over the WebDriver protocol."""

import base64
import json
import re
import subprocess
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PATIENCE = 20


class Driver:
    """A chromedriver process."""

    def __init__(self):
        self.process = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if started := re.search(r"started successfully on port (\d+)", line):
                self.url = f"http://127.0.0.1:{started[1]}"
                return
        raise RuntimeError("chromedriver does not start")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Browser:
    """A Chromium with this profile, which outlives it."""

    def __init__(self, driver, profile, site):
        self.driver, self.site = driver, site
        self.session = f"{driver.url}/session"
        # Without the sandbox, which root has no use for; without motion, for a click waits for nothing to come to rest.
        flags = ["--headless=new", "--no-sandbox", "--force-prefers-reduced-motion", f"--user-data-dir={profile}"]
        capabilities = {"goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})
        self.session += f"/{session['sessionId']}"
        self.resize(1200, 900)

    def close(self):
        self._call("DELETE", "")

    def resize(self, width, height):
        # The size of the page, not of the window, which cannot be made as narrow as a phone.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme):
        self._devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def go(self, path):
        self._call("POST", "/url", {"url": self.site + path})

    def back(self):
        self._call("POST", "/back", {})

    def reload(self):
        self._call("POST", "/refresh", {})

    def press(self, keys):
        """Presses keys, one after the other, wherever the focus is."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def press_and_follow(self, keys):
        """Presses keys that lead to another page, and waits until that is there."""
        self.script("window.left = true")
        self.press(keys)
        self.wait_for(lambda: self.script("return !window.left && document.readyState === 'complete'"))

    def windows(self):
        return self._call("GET", "/window/handles")

    def switch_to(self, window):
        self._call("POST", "/window", {"handle": window})

    def path(self):
        return self._call("GET", "/url").removeprefix(self.site)

    def text(self, selector="body"):
        return self._call("GET", f"/element/{self._find(selector)}/text")

    def click(self, selector):
        self._call("POST", f"/element/{self._find(selector)}/click", {})

    def follow(self, selector):
        """Clicks on what leads to another page, and waits until that is there."""
        self.script("window.left = true")
        self.click(selector)
        self.wait_for(lambda: self.script("return !window.left && document.readyState === 'complete'"))

    def type(self, selector, text):
        self._call("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def script(self, script, *arguments):
        return self._call("POST", "/execute/sync", {"script": script, "args": arguments})

    def cookies(self):
        return {cookie["name"]: cookie for cookie in self._call("GET", "/cookie")}

    def complaints(self):
        """What the console holds of errors since the last call."""
        log = self._call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def screenshot(self, file, whole=True):
        """A picture of the whole page, or of what a visitor sees of it."""
        png = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": whole})["data"]
        file.write_bytes(base64.b64decode(png))

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"it never happened at {self.path()}:\n{self.text()}")
            time.sleep(0.05)

    def _find(self, selector):
        return self._call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def _devtools(self, command, parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _call(self, method, path, body=None):
        body = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.session + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise AssertionError(f"{method} {path}: {value['error']}: {value['message']}") from None
