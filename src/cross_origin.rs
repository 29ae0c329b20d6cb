//! Cross-origin protection: which requests a browser sent from a page of another origin.
//!
//! [`SessionManager::check_cross_origin`](crate::SessionManager::check_cross_origin) uses it, and through it the adapters, before
//! they open a session. The rules are those of `CrossOriginProtection` in Go 1.25. They need neither a token nor stored state.
//! Invariant: a header that cannot be read, or that was sent more than once, never lets a request pass.

use std::net::{IpAddr, Ipv6Addr};

use crate::{Error, ErrorKind, Result, operation};

/// How much of a header an error text shows, in characters.
const SHOWN_CHARS: usize = 100;

const ORIGIN_RULE: &str = "trusted_origin must be a whole origin: SCHEME://HOST or SCHEME://HOST:PORT in ASCII, without user, \
                           path, slash at the end or wildcard";
const PATH_RULE: &str = "exempt_path must be a whole path as the request line has it: a slash first, ASCII only, without query \
                         and fragment";

/// The settings of the protection.
#[derive(Debug)]
pub(crate) struct CrossOriginProtection {
    pub(crate) is_on: bool,
    /// The trusted origins. An invalid one is kept until `validate`, as the text to show.
    trusted: Vec<Result<Origin, String>>,
    exempt_paths: Vec<String>,
}

impl Default for CrossOriginProtection {
    fn default() -> Self {
        Self { is_on: true, trusted: Vec::new(), exempt_paths: Vec::new() }
    }
}

impl CrossOriginProtection {
    pub(crate) fn trust(&mut self, origin: &str) {
        // Show no password in front of the host.
        let shown = || shown_text(origin.rsplit('@').next().unwrap_or_default());
        self.trusted.push(Origin::parse(origin).ok_or_else(shown));
    }

    pub(crate) fn exempt(&mut self, path: String) {
        self.exempt_paths.push(path);
    }

    /// Checks that each trusted origin and each exempt path can match a request.
    pub(crate) fn validate(&self) -> Result<()> {
        let origin = self.trusted.iter().find_map(|origin| origin.as_ref().err());
        if let Some(shown) = origin {
            return Err(Error::misconfigured(operation::BUILD_MANAGER, format!("{ORIGIN_RULE}, not {shown}")));
        }
        let is_path =
            |path: &str| path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && !"?#".contains(c));
        if let Some(path) = self.exempt_paths.iter().find(|path| !is_path(path)) {
            let shown = shown_text(path);
            return Err(Error::misconfigured(operation::BUILD_MANAGER, format!("{PATH_RULE}, not {shown}")));
        }
        Ok(())
    }

    /// Returns which page sent this request, or [`ErrorKind::CrossOrigin`] if a page of another origin made a browser send it.
    pub(crate) fn check<N, V>(&self, method: &str, target: &str, headers: impl Iterator<Item = (N, V)>) -> Result<Page>
    where
        N: AsRef<str>,
        V: AsRef<[u8]>,
    {
        if !self.is_on || matches!(method, "GET" | "HEAD" | "OPTIONS") {
            return Ok(Page::Other);
        }
        let evidence = Evidence::from_headers(headers);
        match evidence.verdict() {
            Verdict::SameOrigin => Ok(evidence.page()),
            _ if self.is_exempt(target) || self.is_trusted(&evidence) => Ok(Page::Other),
            verdict => Err(evidence.refusal(verdict, method)),
        }
    }

    /// Returns `true` if the path of the request is exempt. It is compared undecoded, so that no other spelling matches.
    fn is_exempt(&self, target: &str) -> bool {
        let path = target.split('?').next().unwrap_or_default();
        self.exempt_paths.iter().any(|exempt| exempt == path)
    }

    fn is_trusted<V: AsRef<[u8]>>(&self, evidence: &Evidence<V>) -> bool {
        let origin = only(&evidence.origins).and_then(Origin::parse);
        origin.is_some_and(|origin| self.trusted.iter().flatten().any(|trusted| *trusted == origin))
    }
}

/// The page that sent a request which passed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// A page of this origin that came over plain HTTP from another machine. Browsers drop `Secure` cookies there.
    PlainHttp,
    /// Another page, or none that the headers show.
    Other,
}

/// The headers of a request that show where it comes from. An empty header counts as absent.
struct Evidence<V> {
    sites: Vec<V>,
    origins: Vec<V>,
    hosts: Vec<V>,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    /// The request comes from a page of this origin, from the visitor, or from no browser.
    SameOrigin,
    /// `Sec-Fetch-Site` names another site, another host of this site, or is not as browsers send it.
    OtherSite,
    /// `Sec-Fetch-Site` is absent, and `Origin` does not equal `Host`.
    OtherHost,
}

impl<V: AsRef<[u8]>> Evidence<V> {
    fn from_headers<N: AsRef<str>>(headers: impl Iterator<Item = (N, V)>) -> Self {
        let mut evidence = Self { sites: Vec::new(), origins: Vec::new(), hosts: Vec::new() };
        for (name, value) in headers.filter(|(_, value)| !value.as_ref().trim_ascii().is_empty()) {
            let is = |known: &str| name.as_ref().eq_ignore_ascii_case(known);
            if is("Sec-Fetch-Site") {
                evidence.sites.push(value);
            } else if is("Origin") {
                evidence.origins.push(value);
            } else if is("Host") {
                evidence.hosts.push(value);
            }
        }
        evidence
    }

    fn verdict(&self) -> Verdict {
        if !self.sites.is_empty() {
            return match only(&self.sites) {
                Some("same-origin" | "none") => Verdict::SameOrigin,
                _ => Verdict::OtherSite,
            };
        }
        if self.origins.is_empty() {
            return Verdict::SameOrigin;
        }
        let origin = only(&self.origins).and_then(Origin::parse);
        match origin.zip(only(&self.hosts)) {
            Some((origin, host)) if origin.is_of_host(host) => Verdict::SameOrigin,
            _ => Verdict::OtherHost,
        }
    }

    /// Returns the page that sent a request of the same origin. Browsers send no `Sec-Fetch-Site` over plain HTTP, except to their
    /// own machine.
    fn page(&self) -> Page {
        let origin = only(&self.origins).filter(|_| self.sites.is_empty()).and_then(Origin::parse);
        match origin {
            Some(origin) if origin.scheme == "http" && !origin.is_loopback() => Page::PlainHttp,
            _ => Page::Other,
        }
    }

    fn refusal(&self, verdict: Verdict, method: &str) -> Error {
        let remedy = match verdict {
            Verdict::OtherHost => "let the proxy pass Host, or name the origin with trusted_origin",
            _ => "if it is meant to be accepted, name the origin with trusted_origin, or the path with exempt_path",
        };
        let (method, site) = (shown_text(method), shown(&self.sites));
        let (origin, host) = (shown(&self.origins), shown(&self.hosts));
        let why = format!("method {method}, Sec-Fetch-Site {site}, Origin {origin}, Host {host}: {remedy}");
        Error::new(ErrorKind::CrossOrigin, operation::CHECK_CROSS_ORIGIN).with_source(why)
    }
}

/// Returns the value of a header that was sent once and is UTF-8.
fn only<V: AsRef<[u8]>>(values: &[V]) -> Option<&str> {
    match values {
        [value] => str::from_utf8(value.as_ref().trim_ascii()).ok(),
        _ => None,
    }
}

/// Returns the values of a header for an error text.
fn shown<V: AsRef<[u8]>>(values: &[V]) -> String {
    match values {
        [] => "absent".to_owned(),
        [value] => shown_text(&String::from_utf8_lossy(value.as_ref())),
        [value, ..] => format!("{} and more", shown_text(&String::from_utf8_lossy(value.as_ref()))),
    }
}

/// Returns a quoted text, without control characters and not too long for a log.
fn shown_text(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// An origin, with its host in lower case and the default port of its scheme filled in.
#[derive(Debug, PartialEq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// Parses `SCHEME://HOST` or `SCHEME://HOST:PORT`, and nothing else.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(is_scheme_char) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = parse_authority(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { scheme, host, port })
    }

    /// Returns `true` if the host is the machine of the browser.
    fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || address.is_ok_and(|address| address.is_loopback())
    }

    /// Returns `true` if a `Host` header names the host and the port of this origin.
    ///
    /// The header has no scheme, so a port that it lacks is the default one of the origin's scheme.
    fn is_of_host(&self, header: &str) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        parse_authority(header)
            .is_some_and(|(host, port)| host == self.host && Some(port.unwrap_or(default)) == self.port)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Parses `HOST` or `HOST:PORT`, and writes the host in its one form.
fn parse_authority(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_host_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if host.is_empty() || !host.chars().all(is_host_char) {
                return None;
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    match port.strip_prefix(':') {
        None => port.is_empty().then_some((host, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some((host, Some(digits.parse().ok()?))),
        Some(_) => None,
    }
}
