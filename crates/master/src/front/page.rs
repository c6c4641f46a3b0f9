//! The index page of kvs, for people.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use kvdb_server::body::{self, Response};

/// It loads nothing and runs nothing, and its form leads back here.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'");

/// What this is and how it is used, in the name by which the client knows it.
pub(crate) fn index(headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let mut response = body::text(StatusCode::OK, html(&escaped(host)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn html(host: &str) -> String {
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>kvs</title>
</head>
<body>
<h1>kvs</h1>
<p>A key-value store. Values are kept durably, and all pairs of a form are stored together or not at all.</p>
<h2>Read</h2>
<form action="/" method="get"><label>Key <input name="k" required></label> <button>Get its value</button></form>
<pre>curl 'http://{host}/?k=KEY'</pre>
<p>Of several keys, the value that was stored last:</p>
<pre>curl 'http://{host}/?k=A,B,C'</pre>
<h2>Store</h2>
<pre>curl 'http://{host}/' --data-urlencode 'KEY=value' -d auth=PASSCODE</pre>
<p>Any number of pairs may be in one form; <code>auth</code> is the passcode, and no key.</p>
</body>
</html>
"#
    )
}

/// A text that is no markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_its_host_and_nothing_that_a_client_says_is_markup() {
        assert!(html(&escaped("kvs.example:80")).contains("http://kvs.example:80/?k=KEY"));
        assert_eq!(escaped("<a href='x\"'>&"), "&lt;a href=&#39;x&quot;&#39;&gt;&amp;");
    }
}
