//! An ordinary session of about 1 KiB.

use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Deserialize, Serialize)]
pub(crate) struct Visit {
    pub(crate) user: Option<u64>,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) roles: Vec<String>,
    pub(crate) csrf_token: String,
    pub(crate) locale: String,
    pub(crate) theme: Theme,
    pub(crate) count: u64,
    pub(crate) cart: Vec<Item>,
    pub(crate) recently_seen: Vec<u32>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
pub(crate) enum Theme {
    #[default]
    Light,
    Dark,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Item {
    sku: String,
    title: String,
    cents: u32,
    quantity: u8,
    gift: bool,
}

impl Visit {
    pub(crate) fn ordinary() -> Self {
        let item = |number: u32| Item {
            sku: format!("TEA-{:05}-{}", 4711 + number, "KLMNOP".as_bytes()[number as usize % 6] as char),
            title: format!("Darjeeling, first flush, tin no. {number}"),
            cents: 1290 + 35 * number,
            quantity: 1 + (number % 3) as u8,
            gift: number % 2 == 1,
        };
        Self {
            user: Some(81_723),
            name: "Ada Lovelace".to_owned(),
            email: "ada.lovelace@example.org".to_owned(),
            roles: vec!["customer".to_owned(), "reviewer".to_owned()],
            csrf_token: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c".to_owned(),
            locale: "en-GB".to_owned(),
            theme: Theme::Dark,
            count: 1,
            cart: (0..6).map(item).collect(),
            recently_seen: (0..8).map(|number| 4711 + 13 * number).collect(),
        }
    }
}
