//! Keeps pages in a browser from using a front end whose reads and writes are plain GETs.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderName};
use kvdb_protocol::{ErrorCode, Problem};
use std::net::{IpAddr, SocketAddr};

/// Tells where the page comes from that makes a request; browsers send it, and pages cannot change it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A 403 for what a page of another site asks for; and, on loopback, for a host that is no address and not `localhost`: its
/// name may have been made to point here, so that the page seems to be of this site.
pub(crate) fn refuse(headers: &HeaderMap, local: SocketAddr) -> Result<(), Problem> {
    if headers.get(FETCH_SITE).is_some_and(|site| site.as_bytes() == b"cross-site") {
        return Err(Problem::new(ErrorCode::Forbidden, "pages of other sites may not use this"));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if local.ip().is_loopback() && !host.is_empty() && !is_here(host) {
        let detail = format!("a server on loopback is asked by its address or as localhost, not as {host}");
        return Err(Problem::new(ErrorCode::Forbidden, detail));
    }
    Ok(())
}

fn is_here(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pairs: &[(HeaderName, &'static str)], local: &str) -> bool {
        let headers = pairs.iter().map(|(n, v)| (n.clone(), http::HeaderValue::from_static(v))).collect();
        refuse(&headers, local.parse().unwrap()).is_ok()
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        assert!(!allowed(&[(FETCH_SITE, "cross-site")], "10.0.0.1:7532"));
        for site in ["none", "same-origin", "same-site"] {
            assert!(allowed(&[(FETCH_SITE, site)], "127.0.0.1:7532"), "{site}");
        }
        assert!(allowed(&[], "127.0.0.1:7532"));
    }

    #[test]
    fn on_loopback_the_host_is_this_machine() {
        for host in ["localhost", "LOCALHOST:7532", "127.0.0.1:7532", "[::1]:7532", "db.localhost", "localhost."] {
            assert!(allowed(&[(HOST, host)], "127.0.0.1:7532"), "{host}");
        }
        for host in ["evil.example:7532", "localhost.evil.example", "a,b"] {
            assert!(!allowed(&[(HOST, host)], "127.0.0.1:7532"), "{host}");
            assert!(allowed(&[(HOST, "evil.example")], "10.0.0.1:7532"));
        }
    }
}
