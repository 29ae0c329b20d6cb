//! Bearer tokens: ids that clients without cookies send in `Authorization` and get in a header of the response.
//!
//! The manager opens and commits sessions with it, and the adapters take the header from it. The invariant: a request is served by
//! its cookies or by its token, never by both.

use crate::SessionId;

/// The header of a response that gives a client its new token: `Session-Token`.
///
/// See [`SessionManager::open_bearer`](crate::SessionManager::open_bearer).
pub const TOKEN_HEADER: &str = "Session-Token";

/// How the id of a session comes with a request, and goes back with the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Cookie,
    Bearer,
}

impl Carrier {
    /// Returns the request header that the response varies with.
    pub(crate) fn vary(self) -> &'static str {
        match self {
            Self::Cookie => "Cookie",
            Self::Bearer => "Authorization",
        }
    }

    /// Returns the response header that gives the visitor an id.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Cookie => "Set-Cookie",
            Self::Bearer => TOKEN_HEADER,
        }
    }
}

/// Returns the token of a request, from the values of its `Authorization` headers.
///
/// There is none if there are several headers, because two servers could pick different ones, if the scheme is another one, or if
/// the token does not have the form of an id.
pub(crate) fn token<'h>(headers: impl IntoIterator<Item = &'h str>) -> Option<SessionId> {
    let mut headers = headers.into_iter();
    let (Some(only), None) = (headers.next(), headers.next()) else { return None };
    let (scheme, token) = only.trim_matches([' ', '\t']).split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_start_matches(' ').parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_well_formed_bearer_token_counts() {
        let id = SessionId::random();
        let text = id.expose();
        for good in [
            format!("Bearer {text}"),
            format!("bearer {text}"),
            format!("BEARER   {text}"),
            format!(" Bearer {text}\t"),
        ] {
            assert_eq!(token([&*good]), Some(id), "{}", good.len());
        }
        let upper = text.to_uppercase();
        let bad = [
            String::new(),
            text.clone(),
            format!("Basic {text}"),
            format!("Bearer{text}"),
            format!("Bearer\t{text}"),
            format!("Bearer {text},"),
            format!("Bearer \"{text}\""),
            format!("Bearer {text} {text}"),
            format!("Bearer {upper}"),
            format!("Bearer token={text}"),
            "Bearer ".to_owned(),
        ];
        assert!(upper != text);
        for bad in &bad {
            assert_eq!(token([&**bad]), None, "{bad:?}");
        }
        let header = format!("Bearer {text}");
        assert_eq!(token([&*header, &*header]), None);
        assert_eq!(token([]), None);
    }
}
