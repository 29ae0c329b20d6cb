"""The demo shop, as a visitor who clicks through it sees it. The script `run` starts it."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

from webdriver import Browser, Driver

PROGRAM, PICTURES, README = sys.argv[1], *map(pathlib.Path, sys.argv[2:4])
TAB, ENTER, SPACE = "\ue004", "\ue007", " "

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
const targets = [...document.querySelectorAll("button, select, input:not([type=hidden]), nav a, a.button, summary")];
const size = (target) => (target.closest("label") ?? target).getBoundingClientRect();
return targets.filter((target) => Math.min(size(target).width, size(target).height) < 24).map((target) => target.outerHTML);
"""


class Shop(unittest.TestCase):
    def setUp(self):
        self.profile = tempfile.mkdtemp(prefix="shop-")
        self.addCleanup(shutil.rmtree, self.profile, ignore_errors=True)
        self.site = self.open_shop("--idle-timeout", "30m", "--remember-for", "30d", "--own-redis")
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

    def open_other_browser(self):
        profile = self.profile + "-other"
        browser = Browser(DRIVER, profile, self.site)
        self.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        self.addCleanup(browser.close)
        return browser

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

    def picture(self, name, browser=None, whole=True, folder=PICTURES):
        (browser or self.browser).screenshot(folder / f"{name}.png", whole)

    def assertNotice(self, text):
        self.assertIn(text, self.browser.text(".notice"))

    def test_signing_in_keeps_the_cart_and_renews_the_session(self):
        browser = self.browser
        browser.go("/")
        before = browser.cookies()["session"]["value"]
        browser.follow(".card:nth-child(1) button")
        self.assertNotice("Indigo is in your cart")
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

    def test_a_session_that_expired_leads_to_a_calm_page(self):
        self.site = self.open_shop("--idle-timeout", "4s")
        self.reopen_browser()
        browser = self.browser
        browser.go("/")
        browser.reload()  # the session is new on the first page
        browser.wait_for(lambda: "Your session has ended" in browser.text("footer"))
        # The form on the page belongs to the session that is gone.
        browser.follow(".card button")
        self.assertNotice("Your session had ended")
        self.assertEqual(browser.script("return performance.getEntriesByType('navigation')[0].responseStatus"), 200)
        self.sign_in("Ada")
        self.assertIn("Hello, Ada", browser.text())
        browser.wait_for(lambda: "because you were away" in browser.text("main"))
        self.assertNotIn("Ada", browser.text("main"))
        browser.follow("main a")
        self.assertEqual(browser.text("h1"), "Hand-dyed thread, spun to order." if browser.path() == "/" else "Sign in")

    def test_a_visitor_sees_where_he_is_signed_in_and_can_sign_out_there(self):
        here, there = self.browser, self.open_other_browser()

        def devices():
            return here.script("return [...document.querySelectorAll('.devices strong')].map((name) => name.textContent)")

        for browser in (there, here):
            self.sign_in("Ada", browser=browser)
        self.assertEqual(devices(), ["Chrome on Linux", "Chrome on Linux"])
        self.assertEqual(here.text(".devices").count("this one"), 1)
        here.follow(".devices button")
        self.assertNotice("That device is signed out")
        self.assertEqual(devices(), ["Chrome on Linux"])
        self.assertIn("this one", here.text(".devices"))
        there.wait_for(lambda: "signed out from another device" in there.text("main"))

    def test_the_other_device_notices_within_a_second_that_all_are_signed_out(self):
        here, there = self.browser, self.open_other_browser()
        for browser in (there, here):
            self.sign_in("Ada", browser=browser)
        there.go("/")
        self.assertIn("Indigo", there.text("main"))
        time.sleep(1)  # until the stream of the page is open
        here.follow("main a[href='/sign-out-everywhere']")
        self.assertIn("on 2 devices", here.text("main"))
        self.picture("confirm")
        here.follow("main a[href='/account']")
        self.assertIn("Hello, Ada", here.text())
        here.go("/sign-out-everywhere")
        began = time.monotonic()
        here.click("main button")
        there.wait_for(lambda: there.script("return !!document.querySelector('[role=alert]')"))
        took = time.monotonic() - began
        self.assertLess(took, 1)
        self.assertIn("You were signed out from another device", there.text("[role=alert]"))
        self.assertNotIn("Indigo", there.text("main"))
        self.picture("signed-out-elsewhere", there)
        here.wait_for(lambda: here.path() == "/")
        self.assertNotice("You are signed out everywhere")
        for browser in (here, there):
            browser.go("/account")
            self.assertEqual(browser.text("h1"), "Sign in")
            self.assertEqual(browser.complaints(), [])

    def test_a_second_window_is_another_device(self):
        browser = self.browser
        browser.go("/")
        self.assertIn("Sign in here first", browser.text(".experiments"))
        self.sign_in("Ada")
        first = browser.windows()
        browser.click("[data-window]")
        browser.wait_for(lambda: len(browser.windows()) == 2)
        [second] = set(browser.windows()) - set(first)
        browser.switch_to(second)
        browser.wait_for(lambda: browser.script("return document.readyState === 'complete' && !!document.querySelector('#user')"))
        self.assertEqual(browser.script("return [location.hostname, document.querySelector('#user').value]"), ["localhost", "Ada"])
        browser.follow("main button")
        self.assertIn("Hello, Ada", browser.text())
        self.assertEqual(browser.script("return document.querySelectorAll('.devices li').length"), 2)
        browser.switch_to(first[0])
        self.assertIn("Hello, Ada", browser.text())
        browser.reload()
        self.assertEqual(browser.script("return document.querySelectorAll('.devices li').length"), 2)

    def test_ten_stitches_at_once_all_count(self):
        browser = self.browser
        browser.go("/")
        for before in (0, 10):
            browser.click("[data-times]")
            browser.wait_for(lambda: f"{before} + 10 = {before + 10} stitches. None was lost." in browser.text("output"))
            self.assertIn(f"You have sewn {before + 10} stitches", browser.text("#stitches"))
        browser.wait_for(lambda: browser.text("#story").count("POST /stitch") > 5)
        self.assertGreater(int(browser.text("#merged")), 0)
        self.picture("ten-stitches")
        browser.reload()
        self.assertIn("You have sewn 20 stitches", browser.text("#stitches"))
        self.assertEqual(browser.complaints(), [])

    def test_the_shop_fails_fast_without_redis_and_has_everything_after_it(self):
        browser = self.browser
        browser.go("/")
        browser.follow(".card button")
        browser.follow("[action='/redis/take-away'] button")
        self.assertEqual(browser.text("h1"), "One moment, please")
        self.assertNotIn("othing was changed", browser.text("main"))
        browser.wait_for(lambda: "away" in browser.text("#story dl"))
        self.picture("away")
        browser.follow("main a.button")
        self.assertEqual(browser.text("h1"), "One moment, please")
        browser.follow("[action='/redis/bring-back'] button")
        self.assertIn("Hand-dyed thread", browser.text("h1"))
        self.assertEqual(browser.text(".count"), "1\nin it")
        # A form that fails says what was changed, and can be sent again.
        browser.go("/")
        browser.script("return fetch('/redis/take-away', {method: 'POST', redirect: 'manual'}).then(() => 1)")
        browser.follow("#stitches button")
        self.assertIn("Nothing was changed", browser.text("main"))
        self.picture("form-failed")
        browser.follow("main button:not([action])")
        self.assertIn("Nothing was changed", browser.text("main"))
        browser.script("return fetch('/redis/bring-back', {method: 'POST', redirect: 'manual'}).then(() => 1)")
        browser.follow("main button")
        self.assertIn("You have sewn 1 stitch.", browser.text("#stitches"))
        self.assertEqual([text for text in browser.complaints() if "503" not in text], [])

    def test_the_panel_shows_what_happened_and_no_id(self):
        browser = self.browser
        self.sign_in("Ada")
        cookie = browser.cookies()["session"]["value"]
        browser.wait_for(lambda: "POST /sign-in" in browser.text("#story"))
        story = browser.text("#story")
        for text in ("HttpOnly; SameSite=Lax", "New id:", "rotate", '"user": "Ada"', "Ends in", "a Redis of the shop"):
            self.assertIn(text, story)
        self.assertNotIn(cookie, browser.script("return document.documentElement.outerHTML"))
        self.assertEqual(browser.script("return document.querySelector('#panel details').open"), True)
        browser.click("#panel summary")
        browser.reload()
        self.assertEqual(browser.script("return document.querySelector('#panel details').open"), False)

    def test_phones_show_the_experiments_within_two_screens_and_a_folded_panel(self):
        browser = self.browser
        browser.resize(375, 740)
        browser.go("/")
        self.assertEqual(browser.script("return document.querySelector('#panel details').open"), False)
        bottom = "return document.querySelector('.experiments').getBoundingClientRect().bottom + scrollY"
        self.assertLess(browser.script(bottom), 2 * 740)

    def test_a_store_without_an_index_says_what_devices_need(self):
        # A Redis of its own, so that no other one is touched.
        with tempfile.TemporaryDirectory() as folder:
            socket = f"{folder}/redis.sock"
            command = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
            redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                while not pathlib.Path(socket).exists():
                    time.sleep(0.05)
                self.site = self.open_shop("--redis-url", f"redis+unix://{socket}")
                self.reopen_browser()
                self.sign_in("Ada")
                self.assertIn("--expiring", self.browser.text("main"))
                self.assertEqual(self.browser.complaints(), [])
            finally:
                redis.terminate()
                redis.wait()

    def test_the_keyboard_is_enough(self):
        browser = self.browser
        browser.go("/")
        focus = "return (document.activeElement.innerText || document.activeElement.id).trim().split('\\n')[0]"

        def tab_to(text):
            for _ in range(60):
                browser.press(TAB)
                if browser.script(focus).startswith(text):
                    outline = "return getComputedStyle(document.activeElement).outlineStyle"
                    self.assertEqual(browser.script(outline), "solid", text)
                    return
            self.fail(f"no Tab leads to {text}")

        tab_to("Skip to the content")
        browser.press(ENTER)
        tab_to("Ten stitches")
        browser.press(ENTER)
        browser.wait_for(lambda: "None was lost" in browser.text("output"))
        self.assertIn("Ten stitches", browser.script(focus))
        browser.go("/")
        tab_to("Behind this page")
        browser.press(SPACE)
        self.assertEqual(browser.script("return document.querySelector('#panel details').open"), False)
        browser.go("/")
        tab_to("Sign in")
        browser.press_and_follow(ENTER)
        tab_to("user")
        browser.press("Ada")
        browser.press(TAB + SPACE)
        browser.press_and_follow(TAB + ENTER)
        self.assertIn("Hello, Ada", browser.text())
        self.assertIn("Yes", browser.text("main dl"))
        tab_to("Sign out everywhere")
        browser.press_and_follow(ENTER)
        tab_to("Sign out everywhere")
        browser.press_and_follow(ENTER)
        self.assertNotice("signed out everywhere")

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
        self.look_at({"empty-cart": "/cart", "sign-in": "/sign-in", "about": "/about", "lost": "/no-such-page"})
        self.sign_in("Augusta Ada King-Noel, Countess of Lovel", remember=True)
        for card in (1, 2, 5):
            browser.go("/")
            browser.follow(f".card:nth-child({card}) button")
        self.sign_in("Augusta Ada King-Noel, Countess of Lovel", browser=self.open_other_browser())
        self.look_at({"account": "/account", "cart": "/cart", "confirm": "/sign-out-everywhere"})
        browser.go("/")
        browser.click("[data-times]")
        browser.wait_for(lambda: "None was lost" in browser.text("output"))
        self.look_at({"shop": "/"})

    def test_pictures_for_the_readme(self):
        browser = self.browser
        self.sign_in("Ada")
        browser.go("/")
        browser.follow(".card button")
        browser.prefer("light")
        for name, width, height in (("desktop", 1280, 800), ("phone", 375, 800)):
            browser.resize(width, height)
            browser.go("/")
            browser.click("[data-times]")
            browser.wait_for(lambda: "None was lost" in browser.text("output"))
            browser.script("document.activeElement.blur(); scrollTo(0, 0)")
            time.sleep(0.5)  # until the panel is filled
            self.picture(f"shop-{name}", whole=False, folder=README)
        size = sum((README / f"shop-{name}.png").stat().st_size for name in ("desktop", "phone"))
        self.assertLess(size, 300_000)

    def look_at(self, pages):
        browser = self.browser
        for (name, path), (width, height), scheme in (
            (page, screen, scheme)
            for page in pages.items()
            for screen in ((375, 740), (768, 1024), (1280, 800))
            for scheme in ("light", "dark")
        ):
            with self.subTest(page=name, width=width, scheme=scheme):
                browser.resize(width, height)
                browser.prefer(scheme)
                browser.go(path)
                has_panel = browser.script("return !!document.getElementById('panel')")
                if has_panel:
                    browser.wait_for(lambda: browser.script("return !!document.querySelector('#story dl')"))
                self.picture(f"{name}-{width}-{scheme}")
                self.readable(width)
                if has_panel and width < 1120:
                    browser.click("#panel summary")
                    self.picture(f"{name}-{width}-{scheme}-panel")
                    self.readable(width)
                    browser.script("sessionStorage.clear()")
        browser.resize(1200, 900)

    def readable(self, width):
        browser = self.browser
        self.assertLessEqual(browser.script("return document.documentElement.scrollWidth"), width)
        self.assertEqual(browser.script(FAINT), [])
        self.assertEqual(browser.script(UNLABELLED), [])
        self.assertEqual(browser.script(SMALL), [])
        self.assertEqual(browser.script("return document.documentElement.lang"), "en")
        self.assertEqual(browser.script("return document.querySelectorAll('h1').length"), 1)
        self.assertEqual([text for text in browser.complaints() if "404" not in text], [])


if __name__ == "__main__":
    DRIVER = Driver()
    try:
        unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
    finally:
        DRIVER.stop()
