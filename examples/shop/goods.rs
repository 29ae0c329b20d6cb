//! The goods: the front page, with the experiments and the counter, and the cart.
//!
//! The route shows both pages. Invariant: an item that is not sold here has a price too, because the API adds any item.

use std::fmt::Write;

use crate::common::{Cut, Item};
use crate::html::{escape, euros, form};
use crate::page::View;
use crate::panel;

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

pub(crate) fn shop(view: &View<'_>) -> String {
    format!(
        "<div class=hero><div><h1>Hand-dyed thread, spun to order.</h1>\
         <p>A demonstration of <a href=/about>sessions</a>: a cart, a counter and a sign-in that stay right whatever happens. \
         Try to break them.</div>{}</div>{}{}\
         <h2>The colours</h2><ul class=grid>{}</ul>",
        skein(),
        panel::experiments(view),
        stitches(view),
        PRODUCTS.iter().map(|product| card(view, product)).collect::<String>(),
    )
}

fn card(view: &View<'_>, Product { name, colour, story, cents }: &Product) -> String {
    let id = name.to_lowercase();
    let fields = format!(
        "<input type=hidden name=item value=\"{name}\">\
         <label for={id}>Length</label><select id={id} name=metres>\
         <option value=100>100 m<option value=250>250 m<option value=500>500 m</select>\
         <label class=check><input type=checkbox name=gift> Wrap as a gift</label>\
         <button>Add<span class=unseen> {name}</span> to cart</button>"
    );
    format!(
        "<li class=card>{}<h3>{name}</h3><p>{story}<p class=price>{} <small>per 100 m</small></p>{}",
        spool(colour),
        euros(*cents),
        form(&view.token, "/cart/add", &fields)
    )
}

fn stitches(view: &View<'_>) -> String {
    let hits = view.shopper.hits;
    let noun = if hits == 1 { "stitch" } else { "stitches" };
    format!(
        "<section class=box id=stitches data-hits={hits}><h2>Your seam</h2>\
         <p>You have sewn <strong>{hits}</strong> {noun}. They are kept as long as your session is.</p>{}{}</section>",
        seam(hits),
        form(&view.token, "/stitch", "<button class=quiet>Sew a stitch</button>")
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

pub(crate) fn cart(view: &View<'_>) -> String {
    if view.shopper.cart.is_empty() {
        return "<section class=narrow><h1>Your cart</h1><p>It is empty, and weighs nothing.\
                <p><a class=button href=/>Look at the colours</a></section>"
            .to_owned();
    }
    let (mut rows, mut total) = (String::new(), 0);
    for (row, item) in view.shopper.cart.iter().enumerate() {
        let cents = price(item);
        total += cents;
        let _ = write!(rows, "<tr>{}<td>{}<td>{}", description(item), euros(cents), remove(view, row, item));
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

fn price(item: &Item) -> u32 {
    product(&item.name).map_or(500, |product| product.cents) * item.cut.metres / 100
}

fn description(Item { name, cut: Cut { metres, gift } }: &Item) -> String {
    let colour = product(name).map_or("#9a948a", |product| product.colour);
    let gift = if *gift { " <span class=tag>wrapped as a gift</span>" } else { "" };
    format!(
        "<th scope=row><svg class=swatch viewBox=\"0 0 16 16\" aria-hidden=true><circle cx=8 cy=8 r=8 fill={colour} />\
         </svg>{}<p>{metres} m{gift}</p>",
        escape(name)
    )
}

fn remove(view: &View<'_>, row: usize, item: &Item) -> String {
    let name = escape(&item.name);
    let fields = format!(
        "<input type=hidden name=row value={row}><input type=hidden name=item value=\"{name}\">\
         <button class=quiet>Remove<span class=unseen> {name}</span></button>"
    );
    form(&view.token, "/cart/remove", &fields)
}
