"""The demo shop, as somebody who clicks through it sees it. Run by the script beside this."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
import urllib.request

from webdriver import Browser, Driver

PROGRAM, PICTURES = sys.argv[1], pathlib.Path(sys.argv[2])

# Text whose contrast with what is behind it is under 4.5 (WCAG 2.2 AA).
FAINT = """
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const rgba = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const color = rgba(getComputedStyle(element).backgroundColor);
    if (color.length === 3 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const faint = new Set();
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || element.closest(".unseen, .skip, option")) continue;
  const [dark, light] = [rgba(getComputedStyle(element).color), behind(element)].map(luminance).sort((a, b) => a - b);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < 4.5) faint.add(`${contrast.toFixed(2)}: ${texts.currentNode.data.trim()}`);
}
return [...faint];
"""

UNLABELLED = """
const fields = [...document.querySelectorAll("input:not([type=hidden]), select")];
return fields.filter((field) => field.labels.length === 0).map((field) => field.outerHTML);
"""

# What is under 24 pixels in either direction and no link within a sentence (WCAG 2.2 AA, target size).
SMALL = """
const targets = [...document.querySelectorAll("button, select, input:not([type=hidden]), nav a, a.button")];
const size = (target) => (target.closest("label") ?? target).getBoundingClientRect();
return targets.filter((target) => Math.min(size(target).width, size(target).height) < 24).map((target) => target.outerHTML);
"""


class Shop(unittest.TestCase):
    def setUp(self):
        self.profile = tempfile.mkdtemp(prefix="shop-")
        self.addCleanup(shutil.rmtree, self.profile, ignore_errors=True)
        self.site = self.open_shop("--idle-timeout", "30m", "--remember-for", "30d")
        self.open_browser()
        self.addCleanup(lambda: self.browser.close())

    def open_shop(self, *flags):
        command = [PROGRAM, "--listen", "127.0.0.1:0", "--insecure-cookies", *flags]
        shop = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

        def close():
            shop.terminate()
            self.assertEqual(shop.wait(20), 0)
            shop.stdout.close()

        self.addCleanup(close)
        return shop.stdout.readline().removeprefix("listening on ").split()[0]

    def open_browser(self):
        self.browser = Browser(DRIVER, self.profile, self.site)

    def reopen_browser(self):
        self.browser.close()
        self.open_browser()

    def sign_in(self, name, remember=False, browser=None):
        browser = browser or self.browser
        browser.go("/sign-in")
        browser.type("#user", name)
        if remember:
            browser.click("[name=remember]")
        browser.follow("main button")

    def api(self, path):
        """Calls the API with the visitor's session, which a page of the shop may not."""
        cookie = f"session={self.browser.cookies()['session']['value']}"
        request = urllib.request.Request(self.site + path, method="POST", headers={"Cookie": cookie})
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20).close()

    def picture(self, name):
        self.browser.screenshot(PICTURES / f"{name}.png")

    def assertNotice(self, text):
        self.assertIn(text, self.browser.text(".notice"))

    def test_signing_in_keeps_the_cart_and_renews_the_session(self):
        browser = self.browser
        browser.go("/")
        before = browser.cookies()["session"]["value"]
        browser.follow(".card:nth-child(1) button")
        self.assertNotice("Added")
        self.sign_in("Ada")
        self.assertEqual(browser.path(), "/account")
        self.assertIn("Hello, Ada", browser.text())
        self.assertNotEqual(browser.cookies()["session"]["value"], before)
        browser.go("/cart")
        self.assertIn("Indigo", browser.text("table"))

    def test_cart_and_counter_survive_a_reload(self):
        browser = self.browser
        browser.go("/")
        browser.click("#weld [value='500']")
        browser.click(".card:nth-child(3) [name=gift]")
        browser.follow(".card:nth-child(3) button")
        for _ in range(3):
            browser.follow("#stitches button")
        browser.reload()
        self.assertIn("You have sewn 3 stitches", browser.text("#stitches"))
        browser.follow("header a[href='/cart']")
        for _ in range(2):
            self.assertRegex(browser.text("tbody"), r"Weld\s+500 m\s*wrapped as a gift\s+€ 26.00")
            browser.reload()
        browser.follow("tbody button")
        self.assertIn("It is empty", browser.text())

    def test_only_a_visitor_who_wants_it_is_remembered_when_the_browser_is_closed(self):
        for remember in (False, True):
            self.sign_in("Ada", remember)
            self.assertIn("Hello, Ada", self.browser.text())
            self.assertEqual("expiry" in self.browser.cookies()["session"], remember)
            self.reopen_browser()
            self.browser.go("/account")
            self.assertEqual(self.browser.text("h1"), "Hello, Ada" if remember else "Sign in")
            self.assertEqual("Ada" in self.browser.text(), remember)

    def test_no_script_sees_the_cookie(self):
        self.sign_in("Ada")
        cookie = self.browser.cookies()["session"]
        self.assertEqual((cookie["httpOnly"], cookie["sameSite"]), (True, "Lax"))
        self.assertEqual(self.browser.script("return document.cookie"), "")

    def test_after_signing_out_the_back_button_shows_nothing_private(self):
        browser = self.browser
        self.sign_in("Ada")
        browser.go("/cart")
        browser.go("/account")
        before = browser.cookies()["session"]["value"]
        browser.follow("main button")
        self.assertNotice("You are signed out")
        self.assertNotEqual(browser.cookies()["session"]["value"], before)
        for _ in range(3):
            browser.back()
            self.assertNotIn("Ada", browser.text())
            self.assertNotIn("Ada", browser.script("return document.documentElement.outerHTML"))
        self.assertIn("Sign in", browser.text("header"))

    def test_the_time_left_runs_down_and_is_whole_again_after_a_click(self):
        browser = self.browser
        self.sign_in("Ada")

        def left():
            minutes, seconds = browser.text("[role=timer]").split(":")
            return 60 * int(minutes) + int(seconds)

        first = left()
        self.assertGreater(first, 1700)
        browser.wait_for(lambda: left() <= first - 2)
        browser.reload()
        self.assertGreater(left(), first - 2)

    def test_a_session_that_expired_meanwhile_leads_to_a_calm_page(self):
        self.site = self.open_shop("--idle-timeout", "6s")
        self.reopen_browser()
        browser = self.browser
        self.sign_in("Ada")
        browser.wait_for(lambda: "Your session has ended" in browser.text("footer"))
        self.picture("ended")
        # The form on the page belongs to the session that is gone.
        browser.follow("main button")
        self.assertNotice("Your session had ended")
        self.assertEqual(browser.script("return performance.getEntriesByType('navigation')[0].responseStatus"), 200)
        self.assertNotIn("Ada", browser.text())
        self.picture("calm")
        self.sign_in("Ada")
        self.assertIn("Hello, Ada", browser.text())
        browser.wait_for(lambda: "Your session has ended" in browser.text("footer"))
        browser.go("/account")
        self.assertEqual(browser.text("h1"), "Sign in")

    def test_a_visitor_sees_where_he_is_signed_in_and_can_sign_out_there(self):
        here, there = self.browser, Browser(DRIVER, self.profile + "-there", self.site)
        self.addCleanup(shutil.rmtree, self.profile + "-there", ignore_errors=True)
        self.addCleanup(there.close)

        def devices():
            return here.script("return [...document.querySelectorAll('.devices strong')].map((name) => name.textContent)")

        for _ in range(2):
            for browser in (there, here):
                self.sign_in("Ada", browser=browser)
            self.assertEqual(devices(), ["Chrome on Linux", "Chrome on Linux"])
            self.assertEqual(here.text(".devices").count("this one"), 1)
            here.follow(".devices button")
            self.assertEqual(devices(), ["Chrome on Linux"])
            self.assertIn("this one", here.text(".devices"))
            there.go("/account")
            self.assertEqual(there.text("h1"), "Sign in")
        self.sign_in("Ada", browser=there)
        here.follow("form[action='/sign-out-everywhere'] button")
        self.assertNotice("You are signed out")
        for browser in (here, there):
            browser.go("/account")
            self.assertEqual(browser.text("h1"), "Sign in")

    def test_a_form_without_the_token_changes_nothing(self):
        browser = self.browser
        browser.go("/")
        forge = """const token = document.querySelector(".card [name=token]");
            arguments[0] ? token.value = token.value.replace(/.$/, (last) => last === "0" ? "1" : "0") : token.remove()"""
        for keep in (False, True):
            browser.script(forge, keep)
            browser.follow(".card button")
            self.assertNotice("nothing was changed")
        browser.go("/cart")
        self.assertIn("It is empty", browser.text())

    def test_what_a_visitor_writes_is_text_wherever_it_is_shown(self):
        name = "<b id=x>&'\""
        self.sign_in(name)
        self.assertIn(f"Hello, {name}", self.browser.text())
        self.assertIsNone(self.browser.script("return document.querySelector('#x')"))
        self.api(f"/api/cart?item={urllib.parse.quote(name)}")
        self.browser.go("/cart")
        self.assertIn(name, self.browser.text("tbody"))
        self.assertIsNone(self.browser.script("return document.querySelector('#x')"))

    def test_every_page_is_readable_on_any_screen(self):
        browser = self.browser
        pages = {"shop": "/", "empty-cart": "/cart", "sign-in": "/sign-in", "about": "/about", "lost": "/no-such-page"}
        self.look_at(pages)
        self.sign_in("Augusta Ada King-Noel, Countess of Lovel", remember=True)
        for card in (1, 2, 5):
            browser.go("/")
            browser.follow(f".card:nth-child({card}) button")
        for _ in range(5):
            browser.follow("#stitches button")
        other = Browser(DRIVER, self.profile + "-other", self.site)
        self.addCleanup(shutil.rmtree, self.profile + "-other", ignore_errors=True)
        self.sign_in("Augusta Ada King-Noel, Countess of Lovel", browser=other)
        other.close()
        self.look_at({"account": "/account", "cart": "/cart", "shop-signed-in": "/?notice=added"})

    def look_at(self, pages):
        browser = self.browser
        for (name, path), (screen, width, height), scheme in (
            (page, screen, scheme)
            for page in pages.items()
            for screen in (("desk", 1200, 900), ("phone", 360, 740))
            for scheme in ("light", "dark")
        ):
            with self.subTest(page=name, screen=screen, scheme=scheme):
                browser.resize(width, height)
                browser.prefer(scheme)
                browser.go(path)
                self.picture(f"{name}-{screen}-{scheme}")
                self.assertLessEqual(browser.script("return document.documentElement.scrollWidth"), width)
                self.assertEqual(browser.script(FAINT), [])
                self.assertEqual(browser.script(UNLABELLED), [])
                self.assertEqual(browser.script(SMALL), [])
                self.assertEqual(browser.script("return document.documentElement.lang"), "en")
                self.assertEqual(browser.script("return document.querySelectorAll('h1').length"), 1)
                complaints = [text for text in browser.complaints() if "404" not in text]
                self.assertEqual(complaints, [])
        browser.resize(1200, 900)


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    DRIVER = Driver()
    try:
        unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
    finally:
        DRIVER.stop()
