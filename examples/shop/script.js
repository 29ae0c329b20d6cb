// What the pages do while they are open: timers, the panel, ten requests at once, and the end of the session elsewhere.

// Shows how much of the session's time is left. Without a script the page says once how long it was.
const two = (number) => String(number).padStart(2, "0");
const runDown = (timer) => {
  const end = Date.now() + Number(timer.dataset.ms);
  const bar = timer.parentElement.querySelector("progress");
  const show = () => {
    if (!timer.isConnected) return;
    const left = Math.max(0, end - Date.now()), seconds = Math.ceil(left / 1000);
    const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24;
    const clock = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
    timer.textContent = days ? `${days} d ${hours} h` : hours ? `${hours}:${clock}` : clock;
    if (bar) bar.value = left;
    if (seconds === 0) return timer.closest("#ends") && say(timer.closest("#ends"), "Your session has ended.", "/", "Start again");
    // On the next full second of what is left, so that no second is skipped.
    setTimeout(show, left % 1000 || 1000);
  };
  show();
};

// Puts a message with a link into an element that screen readers read out.
const say = (element, text, path, label) => {
  const link = Object.assign(document.createElement("a"), { href: path, textContent: label });
  element.setAttribute("role", "status");
  element.replaceChildren(text + " ", link);
};

const timers = (within) => within.querySelectorAll("[role=timer]").forEach(runDown);
timers(document);

// The panel: open on wide screens, or as the visitor left it.
const panel = document.getElementById("panel"), details = panel?.querySelector("details");
const fillPanel = async () => {
  const response = await fetch("/panel");
  const story = document.getElementById("story");
  story.innerHTML = await response.text();
  timers(story);
  const [last] = story.querySelectorAll(".steps > li");
  document.getElementById("gist").textContent = last ? last.querySelector(".request + p").textContent : "";
};
if (panel) {
  const wide = matchMedia("(min-width: 70rem)"), left = sessionStorage.getItem("panel");
  details.open = left ? left === "open" : wide.matches;
  details.querySelector("summary").addEventListener("click", () => {
    sessionStorage.setItem("panel", details.open ? "closed" : "open");
  });
  fillPanel().catch(() => {});
}

// Opens six connections, as many as browsers have, one after the other: tiny_http, the server below rouille, can leave one of
// several new connections unread until another one is closed.
const pause = (time) => new Promise((done) => setTimeout(done, time));
const connect = () => Promise.all([0, 1, 2, 3, 4, 5].map((n) => pause(30 * n).then(() => fetch(`/pause?${n}`, { cache: "no-store" }))));

// Ten requests at once, which each sew a stitch.
for (const button of document.querySelectorAll("[data-times]")) {
  button.disabled = false;
  button.addEventListener("click", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const times = Number(button.dataset.times), seam = document.getElementById("stitches");
    await connect().catch(() => {});
    const before = Number(seam.dataset.hits);
    const body = new URLSearchParams(new FormData(button.form));
    body.set("script", "yes");
    const sew = () => fetch(button.form.action, { method: "POST", body, signal: AbortSignal.timeout(5000) });
    const responses = await Promise.allSettled(Array.from({ length: times }, sew));
    const kept = responses.filter(({ value }) => value?.status === 204).length;
    const page = await fetch("/").then((response) => response.text());
    const now = new DOMParser().parseFromString(page, "text/html").getElementById("stitches");
    const after = now ? Number(now.dataset.hits) : NaN;
    if (now) seam.replaceWith(now);
    const exact = after === before + kept ? "None was lost." : "That is not exact!";
    button.form.querySelector("output").textContent =
      now ? `${before} + ${kept} = ${after} stitches. ${exact}` : `${kept} of ${times} requests succeeded. Reload the page to see why.`;
    button.disabled = false;
    button.focus();
    await fillPanel();
  });
}

// A second window, whose cookies are its own.
for (const link of document.querySelectorAll("[data-window]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    open(link.href, "_blank", "popup,noopener,width=420,height=760");
  });
}

// The end of the session elsewhere, told as it happens.
const ENDS = {
  renewed: ["Your session has a new id, from another window.", "Reload"],
  expired: ["Your session has ended, because you were away.", "Start again"],
  destroyed: ["You signed out in another window.", "Sign in again"],
};
const watch = () => {
  const stream = new EventSource("/ended");
  stream.addEventListener("session-ended", ({ data }) => {
    stream.close();
    const [text, label] = ENDS[data] ?? ["You were signed out from another device.", "Sign in again"];
    const banner = Object.assign(document.createElement("p"), { className: "notice ended" });
    const main = document.getElementById("content");
    // What the page shows is of a session that is over.
    if (data !== "renewed") {
      main.replaceChildren();
      document.getElementById("ends")?.remove();
      document.querySelector("nav li:last-child").remove();
      fillPanel().catch(() => {});
    }
    main.prepend(banner);
    say(banner, text, data === "renewed" ? location.pathname : "/sign-in", label);
    banner.setAttribute("role", "alert");
  });
  addEventListener("pagehide", () => stream.close());
};
if ("live" in document.body.dataset) watch();
