//! Eureka, as a Spring Cloud application.

use anyhow::{Result, ensure};
use reqwest::{Method, header};
use serde_json::Value;

use super::{CommandLine, Launch, Place, Server};
use crate::http::http_client;

/// `USER:PASSWORD` of a server [with credentials](Eureka::with_credentials).
pub const EUREKA_CREDENTIALS: &str = "eureka-user:eureka-password";

/// A Eureka server with short intervals: changes are visible at once, and instances whose lease has ended
/// are removed within half a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Eureka {
    credentials: bool,
}

impl Eureka {
    /// Requires [`EUREKA_CREDENTIALS`] by HTTP Basic authentication.
    #[must_use]
    pub fn with_credentials(mut self) -> Self {
        self.credentials = true;
        self
    }

    fn request(self, method: Method, url: String) -> Result<reqwest::RequestBuilder> {
        let request = http_client()?
            .request(method, url)
            .header(header::ACCEPT, "application/json");
        Ok(match EUREKA_CREDENTIALS.split_once(':') {
            Some((user, password)) if self.credentials => request.basic_auth(user, Some(password)),
            _ => request,
        })
    }
}

impl Launch for Eureka {
    const NAME: &'static str = "eureka";
    const VARIABLE: &'static str = "EUREKA_HOME";

    fn command(&self, place: &Place) -> Result<CommandLine> {
        let (classes, jars) = (place.home.join("classes"), place.home.join("lib/*"));
        let line = CommandLine::java(&[&classes, &jars], "discovery.EurekaServer", 256)
            .arg(format!("--server.port={}", place.ports[0]))
            // Its only peer is itself. By default it sends registrations to localhost:8761.
            .arg("--eureka.instance.hostname=127.0.0.1")
            .arg(format!(
                "--eureka.client.service-url.defaultZone=http://{}/eureka/",
                place.address()
            ))
            .args([
                "--server.address=127.0.0.1",
                "--eureka.client.register-with-eureka=false",
                "--eureka.client.fetch-registry=false",
                "--eureka.server.use-read-only-response-cache=false",
                "--eureka.server.response-cache-auto-expiration-in-seconds=2",
                "--eureka.server.eviction-interval-timer-in-ms=500",
                "--eureka.server.enable-self-preservation=false",
            ]);
        Ok(if self.credentials {
            line.arg(format!("--credentials={EUREKA_CREDENTIALS}"))
        } else {
            line
        })
    }

    fn url(&self, place: &Place) -> String {
        format!("eureka://{}/eureka", place.address())
    }

    async fn answers(&self, place: &Place) -> bool {
        let apps = async {
            let url = format!("http://{}/eureka/apps", place.address());
            anyhow::Ok(self.request(Method::GET, url)?.send().await?.status())
        };
        apps.await.is_ok_and(|status| status.is_success())
    }
}

impl Server<Eureka> {
    /// A call of its REST API below `/eureka`, for example `POST` to `/apps/TRIM_SERVICE`. The answer is
    /// null if it is empty.
    ///
    /// # Errors
    ///
    /// When it does not answer, or with an error.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("http://{}/eureka{path}", self.address());
        let mut request = self.launch().request(method.parse()?, url)?;
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{method} {path}: {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}
