//! The API described by itself: OpenAPI from the handlers and their types, at `/v1/openapi.json`.

use super::{commands, mongosync, probes, server::Endpoint};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::LazyLock;
use utoipa::{
    OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mongoferry",
        description = "Control and status of one migration. With `--token-file`, every request but /live and /ready needs the token. \
                       An answer of the engine is always 200, a \"no\" included: its `exit_code` tells."
    ),
    security(("token" = [])),
    modifiers(&Scheme),
)]
struct Described;

struct Scheme;

impl utoipa::Modify for Scheme {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        api.components.get_or_insert_default().add_security_scheme("token", bearer);
    }
}

/// The verbs: at `/v1`, and at the root as they were before there was a version.
pub(super) fn verbs() -> OpenApiRouter<Endpoint> {
    OpenApiRouter::new()
        .routes(routes!(commands::start))
        .routes(routes!(commands::pause))
        .routes(routes!(commands::resume))
        .routes(routes!(commands::verify))
        .routes(routes!(commands::cutover))
        .routes(routes!(commands::abort))
        .routes(routes!(commands::throttle))
        .routes(routes!(commands::unthrottle))
}

/// Every route that is described.
pub(super) fn described() -> OpenApiRouter<Endpoint> {
    let own = verbs().routes(routes!(probes::status)).routes(routes!(commands::settings, commands::change_settings));
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(probes::metrics))
        .routes(routes!(probes::live))
        .routes(routes!(probes::ready))
        .nest("/v1", own)
        .nest("/api/v1", mongosync::router())
}

/// The description as JSON.
#[must_use]
pub fn openapi() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| described().split_for_parts().1.to_pretty_json().unwrap_or_default());
    &DOCUMENT
}

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn operations_have_names_of_their_own() {
        let document: serde_json::Value = serde_json::from_str(super::openapi()).unwrap();
        let methods = document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let names: Vec<_> = methods.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}
