//! The frame of all pages, and the pages about failures.
//!
//! The route fills the frame with the pages of `goods` and `account`. Invariant: a page claims that nothing was changed only if
//! the request stored nothing.

use threaded_sessions::{BoundSession, ErrorKind, Handle, Session};

use crate::common::Shopper;
use crate::html::{entry, escape, timer};
use crate::story::Changed;
use crate::{Place, account, goods, panel};

/// The data of a page.
pub(crate) struct View<'a> {
    pub(crate) shopper: &'a Session<Shopper>,
    pub(crate) handle: Option<Handle>,
    pub(crate) notice: Option<String>,
    /// The token that the forms carry, so that no other site can send them.
    pub(crate) token: String,
    /// The host and port at which the browser reached the shop.
    pub(crate) host: &'a str,
    pub(crate) place: &'a Place,
    /// `true` if the page learns when its session ends elsewhere.
    pub(crate) is_live: bool,
}

pub(crate) enum Body {
    Shop,
    Cart,
    /// With the name that another window asked for.
    SignIn(String),
    /// With where the visitor is signed in, if the store knows.
    Account(Option<Vec<BoundSession>>),
    /// With the number of devices.
    ConfirmSignOut(usize),
}

impl View<'_> {
    /// A link that opens a second window with separate cookies: browsers keep those of `localhost` and `127.0.0.1` apart.
    pub(crate) fn other_device(&self) -> String {
        let Some(user) = &self.shopper.user else {
            return "<a class=\"button quiet\" href=/sign-in>Sign in here first</a>".to_owned();
        };
        let (name, port) = self.host.rsplit_once(':').unwrap_or((self.host, "80"));
        let other = match name {
            "127.0.0.1" => "localhost",
            "localhost" => "127.0.0.1",
            _ => return "<span>To try it, open this page in a private window.</span>".to_owned(),
        };
        let user: String = form_urlencoded::byte_serialize(user.as_bytes()).collect();
        format!(
            "<a class=\"button quiet\" href=\"http://{other}:{}/sign-in?user={}\" target=_blank rel=noopener data-window>\
             Sign in on another device</a>",
            escape(port),
            escape(&user)
        )
    }
}

/// A page with the visitor's session.
pub(crate) fn page(body: &Body, view: &View<'_>) -> String {
    let (title, here, content) = match body {
        Body::Shop => ("Hand-dyed thread", "/", goods::shop(view)),
        Body::Cart => ("Your cart", "/cart", goods::cart(view)),
        Body::SignIn(name) => ("Sign in", "/sign-in", account::sign_in(view, name)),
        Body::Account(everywhere) => ("Your account", "/account", account::account(view, everywhere.as_deref())),
        Body::ConfirmSignOut(devices) => {
            ("Sign out everywhere?", "", account::confirm_sign_out_everywhere(view, *devices))
        }
    };
    let notice = view.notice.as_deref().map(escape);
    let notice = notice.map(|notice| format!("<p class=notice role=status>{notice}</p>")).unwrap_or_default();
    let cart = match view.shopper.cart.len() {
        0 => String::new(),
        count => format!(" <span class=count>{count}<span class=unseen> in it</span></span>"),
    };
    let you = match &view.shopper.user {
        Some(user) => entry("/account", &escape(user), here),
        None => entry("/sign-in", "Sign in", here),
    };
    let ends = view.shopper.expires_in().map(timer);
    let ends = ends.map(|timer| format!("<p id=ends>Your session ends in {timer} unless you come back.</p>"));
    Frame {
        title,
        nav: entry("/", "Shop", here) + &entry("/cart", &format!("Cart{cart}"), here) + &you,
        content: notice + &content,
        ends: ends.unwrap_or_default(),
        has_panel: true,
        is_live: view.is_live && view.shopper.user.is_some(),
    }
    .render()
}

#[derive(Default)]
struct Frame<'a> {
    title: &'a str,
    nav: String,
    content: String,
    ends: String,
    has_panel: bool,
    is_live: bool,
}

impl Frame<'_> {
    fn render(&self) -> String {
        let Self { title, nav, content, ends, .. } = self;
        let panel = if self.has_panel { panel::FRAME } else { "" };
        let live = if self.is_live { " data-live" } else { "" };
        format!(
            "<!doctype html>\n\
             <html lang=en>\n\
             <meta charset=utf-8>\n\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
             <title>{title} – Bobbin &amp; Daughters</title>\n\
             <link rel=icon href=/icon.svg type=image/svg+xml>\n\
             <link rel=stylesheet href=/style.css>\n\
             <script src=/script.js defer></script>\n\
             <body{live}>\n\
             <a class=skip href=#content>Skip to the content</a>\n\
             <header><a class=brand href=/><img src=/icon.svg alt=\"\" width=36 height=36>Bobbin &amp; Daughters</a>\n\
             <nav aria-label=Main><ul>{nav}</ul></nav></header>\n\
             <div class=columns>{panel}<main id=content tabindex=-1>{content}</main></div>\n\
             <footer>{ends}<p><a href=/about>How this shop remembers you</a></footer>\n"
        )
    }
}

/// A heading and what follows it, when there is nothing to show.
fn plain(title: &str, text: &str, has_panel: bool) -> String {
    let content = format!("<section class=narrow><h1>{title}</h1>{text}</section>");
    Frame { title, nav: entry("/", "Shop", ""), content, has_panel, ..Frame::default() }.render()
}

pub(crate) fn not_found() -> String {
    let text = "<p>Perhaps the link was cut a little short.<p><a class=button href=/>To the shop</a>";
    plain("There is nothing here", text, false)
}

/// The page that is the same for all visitors.
pub(crate) fn about() -> String {
    let text = "<p>This page knows nothing about you: it has nothing to do with sessions, and costs the store no command.\
         <p>The others keep a small record on the server, found by one cookie that no script can read: your name, your cart, \
         your stitches. It ends by itself when you stay away, and at once when you sign out.\
         <p>When you sign in the record gets a new name, so that nobody who knew the old one comes in with you.\
         <p>This shop demonstrates threaded-sessions, a Rust crate for sessions in Redis. The panel “Behind this page” shows \
         what each click did.\
         <p><a class=button href=/>To the shop</a>";
    plain("How this shop remembers you", text, false)
}

/// For a change that was lost because another request ended or renewed the session.
pub(crate) fn lost(changed: Changed) -> String {
    let kept = match changed {
        Changed::Nothing => "Nothing was changed here.",
        Changed::Something | Changed::Unknown => "Only a part of what you asked for was done.",
    };
    let text = format!(
        "<p>Your session ended or got a new id in another window, just as you clicked. {kept}\
         <p><a class=button href=/>Back to the shop</a>"
    );
    plain("Another window was faster", &text, true)
}

/// A form that the visitor can send again: its path and its fields.
pub(crate) type Retry<'a> = (&'a str, &'a [(String, String)]);

/// A page in the place of one that failed.
pub(crate) fn failed(kind: Option<ErrorKind>, changed: Changed, retry: Option<Retry<'_>>, place: &Place) -> String {
    match kind {
        Some(ErrorKind::Payload) => return start_over(),
        Some(ErrorKind::CrossOrigin) => {
            return plain("Not from here", "<p>Another site sent this form, so the shop ignored it.", false);
        }
        _ => {}
    }
    let is_form = retry.is_some();
    let what = match changed {
        Changed::Nothing if is_form => "Nothing was changed. You can try again in a moment.",
        Changed::Nothing => "Try again in a moment.",
        Changed::Something => "Only a part of what you asked for was done.",
        Changed::Unknown => {
            "Your change was sent, and no reply came: it was made once, or not at all. Look before you try again."
        }
    };
    let again = match (retry, changed) {
        (Some((path, fields)), Changed::Nothing) => retry_form(path, fields),
        (Some(_), _) => "<a class=button href=/>Look what is there</a>".to_owned(),
        (None, _) => "<a class=button href=\"\">Try again</a>".to_owned(),
    };
    let bring_back = if place.has_lost_redis() { panel::BRING_BACK } else { "" };
    let text = format!("<p>Our book of visitors is out of reach. {what}<div class=row>{again}{bring_back}</div>");
    plain("One moment, please", &text, true)
}

/// The form that the visitor sent, with its token.
fn retry_form(path: &str, fields: &[(String, String)]) -> String {
    let field = |(name, value): &(String, String)| {
        format!("<input type=hidden name=\"{}\" value=\"{}\">", escape(name), escape(value))
    };
    let fields: String = fields.iter().map(field).collect();
    format!("<form method=post action=\"{}\">{fields}<button>Try again</button></form>", escape(path))
}

/// For a visitor whose session cannot be read. The form needs no token, because it ends no other session.
fn start_over() -> String {
    let text = "<p>The shop has changed since your last visit. You can start over with an empty cart.\
         <form method=post action=/start-over><button>Start over</button></form>";
    plain("We cannot read your record", text, false)
}
