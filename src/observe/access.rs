//! Who may ask: with a token, only those who know it.
//!
//! `/live` and `/ready` answer anybody, since probes cannot keep secrets; what `/ready` says beyond its code is for
//! those who know the token.

use super::{renewed::Renewed, server::refuse, tls::Tls, token::Token};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use std::{convert::Infallible, sync::Arc};

/// What protects an endpoint. Without a token, anybody may ask who can connect.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The token to know.
    pub token: Option<Renewed<Token>>,
    /// HTTPS instead of HTTP.
    pub tls: Option<Renewed<Tls>>,
}

impl Access {
    /// Takes up files that change, for as long as it is polled.
    pub(super) async fn follow(&self) -> Infallible {
        tokio::join!(follow(self.token.as_ref()), follow(self.tls.as_ref())).0
    }
}

async fn follow<T: Send + Sync + 'static>(renewed: Option<&Renewed<T>>) -> Infallible {
    match renewed {
        Some(renewed) => renewed.follow().await,
        None => std::future::pending().await,
    }
}

/// Put on requests whose asker may know everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trusted;

/// The layer behind the guard against web pages.
pub(super) async fn let_in(token: Arc<Option<Renewed<Token>>>, mut request: Request, next: Next) -> Response {
    let trusted = token.as_ref().as_ref().is_none_or(|token| knows(&token.now(), request.headers()));
    if trusted {
        request.extensions_mut().insert(Trusted);
    } else if !matches!(request.uri().path(), "/live" | "/ready") {
        let mut no = refuse(StatusCode::UNAUTHORIZED, "the endpoint asks for its token: `Authorization: Bearer …`");
        no.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return no;
    }
    next.run(request).await
}

fn knows(token: &Token, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
    let Some((scheme, given)) = value.split_at_checked(b"Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(given.trim_ascii())
}
