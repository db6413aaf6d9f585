//! The first baseline: reads the body and answers 200. Nothing in axum is faster.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;

pub(crate) async fn serve() {
    let app = Router::new().route("/push", post(async |_body: Bytes| StatusCode::OK));
    axum::serve(crate::listen().await, app).await.unwrap();
}
