//! Keeps web pages away from an endpoint that has no password.
//!
//! A page in the operator's browser can send requests to loopback. Browsers name the page in `Origin` on
//! every request that may change something, and we serve no page of our own: so any `Origin` is refused. By
//! DNS rebinding a page can also make the endpoint look like its own site and read from it; then the `Host`
//! is the page's name, while whoever really means loopback says `localhost` or an address.

use super::server::refuse;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;

/// The layer around all routes.
pub(super) async fn keep_web_pages_out(loopback_only: bool, request: Request, next: Next) -> Response {
    match objection(loopback_only, request.headers()) {
        Some(why) => refuse(StatusCode::FORBIDDEN, why),
        None => next.run(request).await,
    }
}

fn objection(loopback_only: bool, headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Some("requests of web pages are refused (there is an Origin header)");
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() != b"none") {
        return Some("requests of web pages are refused (Sec-Fetch-Site is not none)");
    }
    let host = headers.get(header::HOST)?;
    if loopback_only && !host.to_str().is_ok_and(means_this_machine) {
        return Some("the endpoint listens on loopback and answers to localhost or an address only (Host is another name)");
    }
    None
}

/// `localhost` or an address, with or without a port.
fn means_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:27", "[::1]:80", "[::1]", "10.0.0.7:1"] {
            assert!(means_this_machine(host), "{host}");
        }
        for host in ["evil.example", "evil.example:80", "localhost.evil.example", ""] {
            assert!(!means_this_machine(host), "{host}");
        }
    }

    #[test]
    fn a_name_is_fine_where_others_are_meant_to_ask() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "mongoferry:27180".parse().unwrap());
        assert!(objection(false, &headers).is_none());
        assert!(objection(true, &headers).is_some());
        headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
        assert!(objection(false, &headers).is_some());
    }
}
