//! The pages for signing in, the account, and the devices where a visitor is signed in.
//!
//! The route shows these pages. Invariant: forms name a session of another device by its handle, which is no use as a cookie.

use std::fmt::Write;

use threaded_sessions::BoundSession;

use crate::html::{ago, escape, form, short};
use crate::page::View;

/// `name` is in the field already if another window asked for it.
pub(crate) fn sign_in(view: &View<'_>, name: &str) -> String {
    let fields = format!(
        "<label for=user>Your name</label>\
         <input id=user name=user value=\"{}\" autocomplete=username required maxlength=40 aria-describedby=hint>\
         <p id=hint class=hint>Any name will do, and there is no password: this is a demonstration.</p>\
         <label class=check><input type=checkbox name=remember> Remember me when I close the browser</label>\
         <button>Sign in</button>",
        escape(name)
    );
    format!("<section class=narrow><h1>Sign in</h1>{}</section>", form(&view.token, "/sign-in", &fields))
}

/// `everywhere` is `None` if the store does not know where else a visitor is signed in.
pub(crate) fn account(view: &View<'_>, everywhere: Option<&[BoundSession]>) -> String {
    let user = escape(view.shopper.user.as_deref().unwrap_or_default());
    let remembered = if view.shopper.is_remembered() {
        "Yes, also when the browser is closed"
    } else {
        "Until the browser is closed"
    };
    format!(
        "<section class=narrow><h1>Hello, {user}</h1>\
         <dl><dt>Signed in as<dd>{user}<dt>Session began<dd>{}<dt>Remembered<dd>{remembered}\
         <dt>Known in our logs as<dd><code>{}</code></dl>\
         <p class=hint>The last one names your session without giving it away: nobody can come in with it.</p>\
         {}<h2>Where you are signed in</h2>{}</section>",
        ago(view.shopper.created()),
        view.handle.map(short).unwrap_or_default(),
        form(&view.token, "/sign-out", "<button>Sign out</button>"),
        everywhere.map_or(NO_INDEX.to_owned(), |everywhere| devices(view, everywhere)),
    )
}

const NO_INDEX: &str = "<p>This store does not know which sessions are yours, because it has no index. Start the shop with \
     <code>--expiring</code>, or without Redis, to see your devices here and to sign out of them.";

fn devices(view: &View<'_>, everywhere: &[BoundSession]) -> String {
    let mut list = String::new();
    for session in everywhere {
        let label = escape(&session.label);
        let used = session.last_used.map(|used| format!("last seen {}", ago(used).to_lowercase())).unwrap_or_default();
        let rest = if Some(session.handle) == view.handle {
            "<span class=tag>this one</span>".to_owned()
        } else {
            let fields = format!(
                "<input type=hidden name=session value={}>\
                 <button class=quiet>Sign out<span class=unseen> of {label}</span></button>",
                session.handle
            );
            form(&view.token, "/sign-out-there", &fields)
        };
        let _ = write!(list, "<li><div><strong>{label}</strong><p>{used}</p></div>{rest}");
    }
    let other = view.other_device();
    format!(
        "<ul class=devices>{list}</ul><p class=row>{other}\
         <a class=\"button quiet\" href=/sign-out-everywhere>Sign out everywhere</a></p>"
    )
}

/// Asks before all devices are signed out.
pub(crate) fn confirm_sign_out_everywhere(view: &View<'_>, devices: usize) -> String {
    let which = match devices {
        0 | 1 => "This is the only device where you are signed in".to_owned(),
        devices => format!("You are signed in on {devices} devices. The others notice at once"),
    };
    format!(
        "<section class=narrow><h1>Sign out everywhere?</h1><p>{which}.\
         <div class=row>{}<a class=\"button quiet\" href=/account>Stay signed in</a></div></section>",
        form(&view.token, "/sign-out-everywhere", "<button>Sign out everywhere</button>")
    )
}

/// Returns a name for the device with this `User-Agent`.
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
