//! One MQTT connection.

mod config;
mod secret;
mod url;

pub use config::{Config, Tls, Version};
pub use secret::{Secret, SecretError, SecretText};
pub use url::{OneOrMany, Scheme, Url};
