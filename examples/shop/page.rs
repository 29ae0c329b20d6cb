//! The pages of the shop.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use threaded_sessions::{BoundSession, Handle, Session};

use crate::common::{Cut, Item, Shopper};

/// What the pages show.
pub(crate) struct View<'a> {
    pub(crate) shopper: &'a Session<Shopper>,
    pub(crate) handle: Option<Handle>,
    pub(crate) notice: Option<&'a str>,
    /// The token that the forms carry, so that no other site can send them.
    pub(crate) token: String,
}

pub(crate) enum Body {
    Shop,
    Cart,
    SignIn,
    /// With where the visitor is signed in, as far as the store can tell.
    Account(Vec<BoundSession>),
}

struct Product {
    name: &'static str,
    colour: &'static str,
    story: &'static str,
    /// For a hundred metres.
    cents: u32,
}

const PRODUCTS: [Product; 6] = [
    Product { name: "Indigo", colour: "#34478f", story: "Nine dips in the vat, each a shade deeper.", cents: 640 },
    Product { name: "Madder", colour: "#b5402f", story: "Roots of three summers, a warm brick red.", cents: 590 },
    Product { name: "Weld", colour: "#d9ae21", story: "The clearest yellow that grows by a roadside.", cents: 520 },
    Product {
        name: "Verdigris",
        colour: "#3b8878",
        story: "Weld over indigo, like a copper roof in rain.",
        cents: 680,
    },
    Product { name: "Walnut", colour: "#6b4a35", story: "Husks, time and patience. No mordant.", cents: 480 },
    Product { name: "Cochineal", colour: "#a12a5e", story: "A crimson that has been to sea.", cents: 720 },
];

pub(crate) fn is_sold(name: &str) -> bool {
    product(name).is_some()
}

fn product(name: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.name == name)
}

/// A page with the visitor's session.
pub(crate) fn page(body: Body, view: &View<'_>) -> String {
    let (title, here, content) = match body {
        Body::Shop => ("Hand-dyed thread", "/", shop(view)),
        Body::Cart => ("Your cart", "/cart", cart(view)),
        Body::SignIn => ("Sign in", "/sign-in", sign_in(view)),
        Body::Account(everywhere) => ("Your account", "/account", account(view, &everywhere)),
    };
    let notice = match view.notice {
        Some("added") => "Added to your cart.",
        Some("ended") => "Your session had ended, so nothing was changed. You can simply start again.",
        Some("lost") => "You did something else in another window just then, so nothing was changed here.",
        Some("name") => "A name has from 1 to 40 characters.",
        Some("signed-out") => "You are signed out. See you soon!",
        _ => "",
    };
    let notice = if notice.is_empty() { String::new() } else { format!("<p class=notice role=status>{notice}</p>") };
    let cart = match view.shopper.cart.len() {
        0 => String::new(),
        count => format!(" <span class=count>{count}<span class=unseen> in it</span></span>"),
    };
    let you = match &view.shopper.user {
        Some(user) => link("/account", &escape(user), here),
        None => link("/sign-in", "Sign in", here),
    };
    let nav = link("/", "Shop", here) + &link("/cart", &format!("Cart{cart}"), here) + &you;
    document(title, &nav, &format!("{notice}{content}"), &ends(view.shopper.expires_in()))
}

fn link(to: &str, text: &str, here: &str) -> String {
    let current = if to == here { " aria-current=page" } else { "" };
    format!("<li><a href=\"{to}\"{current}>{text}</a>")
}

fn document(title: &str, nav: &str, content: &str, ends: &str) -> String {
    format!(
        "<!doctype html>\n\
         <html lang=en>\n\
         <meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} – Bobbin &amp; Daughters</title>\n\
         <link rel=icon href=/icon.svg type=image/svg+xml>\n\
         <link rel=stylesheet href=/style.css>\n\
         <script src=/script.js defer></script>\n\
         <a class=skip href=#content>Skip to the content</a>\n\
         <header><a class=brand href=/><img src=/icon.svg alt=\"\" width=36 height=36>Bobbin &amp; Daughters</a>\n\
         <nav aria-label=Main><ul>{nav}</ul></nav></header>\n\
         <main id=content tabindex=-1>{content}</main>\n\
         <footer>{ends}<p><a href=/about>How this shop remembers you</a></footer>\n"
    )
}

/// A heading and a sentence, for when there is nothing to show.
pub(crate) fn sorry(title: &str, text: &str) -> String {
    let content =
        format!("<section class=narrow><h1>{title}</h1><p>{text}<p><a class=button href=/>To the shop</a></section>");
    document(title, &link("/", "Shop", ""), &content, "")
}

/// For a visitor whose session cannot be read. The form needs no token, because it ends no other session.
pub(crate) fn start_over() -> String {
    let content = "<section class=narrow><h1>We cannot read your record</h1>\
         <p>The shop has changed since your last visit. You can start over with an empty cart.\
         <form method=post action=/start-over><button>Start over</button></form></section>";
    document("We cannot read your record", &link("/", "Shop", ""), content, "")
}

/// The page that is the same for everybody.
pub(crate) fn about() -> String {
    let content = "<section class=narrow><h1>How this shop remembers you</h1>\
         <p>This page knows nothing about you: it has nothing to do with sessions, and costs the store no command.\
         <p>The others keep a small record on the server, found by one cookie that no script can read: your name, your cart, \
         your stitches. It ends by itself when you stay away, and at once when you sign out.\
         <p>When you sign in the record gets a new name, so that nobody who knew the old one comes in with you.\
         <p><a class=button href=/>To the shop</a></section>";
    document("How this shop remembers you", &link("/", "Shop", "/about"), content, "")
}

/// When the session ends, which the script shows as it runs down.
fn ends(time: Option<Duration>) -> String {
    let Some(time) = time else { return String::new() };
    let words = match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds @ 120..7200 => format!("{} minutes", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    };
    format!(
        "<p id=ends data-ms={}>Your session ends in <span role=timer>{words}</span> unless you come back.</p>",
        time.as_millis()
    )
}

fn shop(view: &View<'_>) -> String {
    let mut products = String::new();
    for Product { name, colour, story, cents } in &PRODUCTS {
        let price = euros(*cents);
        let id = name.to_lowercase();
        let form = form(
            view,
            "/cart/add",
            &format!(
                "<input type=hidden name=item value=\"{name}\">\
                 <label for={id}>Length</label><select id={id} name=metres>\
                 <option value=100>100 m<option value=250>250 m<option value=500>500 m</select>\
                 <label class=check><input type=checkbox name=gift> Wrap as a gift</label>\
                 <button>Add<span class=unseen> {name}</span> to cart</button>"
            ),
        );
        let _ = write!(
            products,
            "<li class=card>{}<h3>{name}</h3><p>{story}<p class=price>{price} <small>per 100 m</small></p>{form}",
            spool(colour)
        );
    }
    let hits = view.shopper.hits;
    let stitch = form(view, "/stitch", "<button class=quiet>Sew a stitch</button>");
    let stitches = if hits == 1 { "stitch" } else { "stitches" };
    format!(
        "<div class=hero><div><h1>Hand-dyed thread,<br>spun to order.</h1>\
         <p>Six colours from four plants and one small insect. Take as much as you need.</div>{}</div>\
         <h2>The colours</h2><ul class=grid>{products}</ul>\
         <section class=panel id=stitches><h2>While you think it over</h2>\
         <p>You have sewn <strong>{hits}</strong> {stitches}. They are kept as long as your session is.</p>{}{stitch}</section>",
        skein(),
        seam(hits)
    )
}

/// A thread of every colour.
fn skein() -> String {
    let threads: String = PRODUCTS
        .iter()
        .zip([(0, 2, 5), (1, 0, 3), (2, 4, 1), (3, 1, 4), (4, 5, 0), (5, 3, 2)])
        .map(|(product, places)| {
            let (from, dip, to) = (30 + 30 * places.0, 20 + 36 * places.1, 30 + 30 * places.2);
            format!("<path stroke={} d=\"M4 {from}C110 {from} 90 {dip} 200 {dip}S300 {to} 396 {to}\"/>", product.colour)
        })
        .collect();
    format!("<svg class=skein viewBox=\"0 0 400 220\" aria-hidden=true>{threads}</svg>")
}

fn spool(colour: &str) -> String {
    let turns: String = (0..7).map(|turn| format!("<path d=\"M40 {0}l40 7\"/>", 32 + 8 * turn)).collect();
    format!(
        "<svg class=spool viewBox=\"0 0 120 120\" aria-hidden=true>\
         <rect x=28 y=12 width=64 height=14 rx=5 fill=#c89b6a /><rect x=28 y=94 width=64 height=14 rx=5 fill=#b3854f />\
         <rect x=36 y=26 width=48 height=68 rx=6 fill={colour} />\
         <g stroke=#fff stroke-opacity=.28 stroke-width=2 stroke-linecap=round>{turns}</g>\
         <path d=\"M84 84c18 2 8 20 24 18\" fill=none stroke={colour} stroke-width=3 stroke-linecap=round /></svg>"
    )
}

/// A seam of up to forty stitches.
fn seam(stitches: u64) -> String {
    let path: String = (0..stitches.min(40)).map(|stitch| format!("M{} 8h9", 4 + 16 * stitch)).collect();
    format!("<svg class=seam viewBox=\"0 0 644 16\" aria-hidden=true><path d=\"{path}\"/></svg>")
}

fn cart(view: &View<'_>) -> String {
    if view.shopper.cart.is_empty() {
        return "<section class=narrow><h1>Your cart</h1><p>It is empty, and weighs nothing.\
                <p><a class=button href=/>Look at the colours</a></section>"
            .to_owned();
    }
    let (mut rows, mut total) = (String::new(), 0);
    for (row, Item { name, cut: Cut { metres, gift } }) in view.shopper.cart.iter().enumerate() {
        let (product, name) = (product(name), escape(name));
        let cents = product.map_or(500, |product| product.cents) * metres / 100;
        total += cents;
        let gift = if *gift { " <span class=tag>wrapped as a gift</span>" } else { "" };
        let remove = form(
            view,
            "/cart/remove",
            &format!(
                "<input type=hidden name=row value={row}><input type=hidden name=item value=\"{name}\">\
                 <button class=quiet>Remove<span class=unseen> {name}</span></button>"
            ),
        );
        let swatch = product.map_or("#9a948a", |product| product.colour);
        let _ = write!(
            rows,
            "<tr><th scope=row><svg class=swatch viewBox=\"0 0 16 16\" aria-hidden=true><circle cx=8 cy=8 r=8 fill={swatch} />\
             </svg>{name}<p>{metres} m{gift}</p><td>{}<td>{remove}",
            euros(cents)
        );
    }
    format!(
        "<section class=cart><h1>Your cart</h1>\
         <table><thead><tr><th scope=col>Thread<th scope=col>Price<td>\
         <tbody>{rows}<tfoot><tr><th scope=row>Together<td>{}<td></table>\
         <p>It stays with you when you sign in. This is a demonstration: nothing can be bought.\
         <p><a class=button href=/>More thread</a></section>",
        euros(total)
    )
}

fn sign_in(view: &View<'_>) -> String {
    let fields = "<label for=user>Your name</label>\
         <input id=user name=user autocomplete=username required maxlength=40 aria-describedby=hint>\
         <p id=hint class=hint>Any name will do, and there is no password: this is a demonstration.</p>\
         <label class=check><input type=checkbox name=remember> Remember me when I close the browser</label>\
         <button>Sign in</button>";
    format!("<section class=narrow><h1>Sign in</h1>{}</section>", form(view, "/sign-in", fields))
}

fn account(view: &View<'_>, everywhere: &[BoundSession]) -> String {
    let user = escape(view.shopper.user.as_deref().unwrap_or_default());
    let remembered = if view.shopper.is_remembered() {
        "Yes, also when the browser is closed"
    } else {
        "Until the browser is closed"
    };
    let handle = view.handle.map(|handle| handle.to_string()[..12].to_owned()).unwrap_or_default();
    format!(
        "<section class=narrow><h1>Hello, {user}</h1>\
         <dl><dt>Signed in as<dd>{user}<dt>Session began<dd>{}<dt>Remembered<dd>{remembered}\
         <dt>Known in our logs as<dd><code>{handle}</code></dl>\
         <p class=hint>The last one names your session without giving it away: nobody can come in with it.</p>\
         {}{}</section>",
        ago(view.shopper.created()),
        form(view, "/sign-out", "<button>Sign out</button>"),
        devices(view, everywhere)
    )
}

/// Where the visitor is signed in.
fn devices(view: &View<'_>, everywhere: &[BoundSession]) -> String {
    if everywhere.is_empty() {
        return String::new();
    }
    let mut list = String::new();
    for session in everywhere {
        let (label, here) = (escape(&session.label), Some(session.handle) == view.handle);
        let used = session.last_used.map(|used| format!("last seen {}", ago(used).to_lowercase())).unwrap_or_default();
        let rest = if here {
            "<span class=tag>this one</span>".to_owned()
        } else {
            let fields = format!(
                "<input type=hidden name=session value={}>\
                 <button class=quiet>Sign out<span class=unseen> of {label}</span></button>",
                session.handle
            );
            form(view, "/sign-out-there", &fields)
        };
        let _ = write!(list, "<li><div><strong>{label}</strong><p>{used}</p></div>{rest}");
    }
    let everywhere = form(view, "/sign-out-everywhere", "<button class=quiet>Sign out everywhere</button>");
    format!("<h2>Where you are signed in</h2><ul class=devices>{list}</ul>{everywhere}")
}

/// What to call the device with this `User-Agent`.
pub(crate) fn device(agent: &str) -> String {
    let first =
        |names: &[(&str, &'static str)]| names.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name);
    let browser = first(&[("Firefox/", "Firefox"), ("Edg/", "Edge"), ("Chrome/", "Chrome"), ("Safari/", "Safari")]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "an iPhone"),
        ("iPad", "an iPad"),
        ("Mac OS", "a Mac"),
        ("Windows", "Windows"),
        ("Linux", "Linux"),
    ]);
    format!("{} on {}", browser.unwrap_or("A browser"), system.unwrap_or("a computer"))
}

fn ago(time: SystemTime) -> String {
    match time.elapsed().unwrap_or_default().as_secs() / 60 {
        0 => "Just now".to_owned(),
        1 => "A minute ago".to_owned(),
        minutes @ 2..120 => format!("{minutes} minutes ago"),
        minutes @ 120..2880 => format!("{} hours ago", minutes / 60),
        minutes => format!("{} days ago", minutes / 1440),
    }
}

/// A form with the token of the session.
fn form(view: &View<'_>, action: &str, fields: &str) -> String {
    let token = &view.token;
    format!("<form method=post action=\"{action}\"><input type=hidden name=token value=\"{token}\">{fields}</form>")
}

fn euros(cents: u32) -> String {
    format!("€ {}.{:02}", cents / 100, cents % 100)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
