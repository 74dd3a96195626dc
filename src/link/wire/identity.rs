//! TLS: whom we trust, who we are, and what went wrong in words a person can act on.
//!
//! The broker is always verified; there is no way to leave that out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::WireError;
use crate::link::{Secret, Tls};
use crate::model::time;

/// The certificates of one connection, as read from their files.
pub struct Identity {
    config: Arc<ClientConfig>,
    /// The files and when each was last changed: when one was, all are read again.
    files: Vec<(PathBuf, Option<SystemTime>)>,
    tls: Tls,
    /// When our own certificate ends to be valid, since 1970.
    expires: Option<Duration>,
}

impl Identity {
    /// The identity of before, if none of its files has changed; else a new one.
    pub(in crate::link) fn current(tls: &Tls, before: Option<Arc<Identity>>) -> Result<Arc<Identity>, WireError> {
        match before {
            Some(before) if before.tls == *tls && before.files == stamps(tls) => Ok(before),
            _ => Identity::read(tls).map(Arc::new),
        }
    }

    fn read(tls: &Tls) -> Result<Identity, WireError> {
        let files = stamps(tls);
        // `ring` is the provider that builds on every target, 32-bit MIPS among them.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Clock))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| WireError::Tls(error.to_string()))?
            .with_root_certificates(roots(tls.ca.as_deref())?);
        let (mut config, expires) = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let expires = chain.first().and_then(expiry);
                let pem = key.read().map_err(|error| WireError::Files(error.to_string()))?;
                let key = PrivateKeyDer::from_pem_slice(pem.reveal().as_bytes()).map_err(|_| {
                    WireError::Files(format!("{key:?} holds no private key: expected PEM with PKCS#8, PKCS#1 or SEC1"))
                })?;
                let config = builder.with_client_auth_cert(chain, key).map_err(|error| {
                    WireError::Files(format!("the key does not go with the certificate {}: {error}", cert.display()))
                })?;
                (config, expires)
            }
            _ => (builder.with_no_client_auth(), None),
        };
        config.alpn_protocols = tls.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Identity { config: Arc::new(config), files, tls: tls.clone(), expires })
    }

    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }

    /// When our own certificate ends to be valid, since 1970; `None` where we have none.
    pub fn expires(&self) -> Option<Duration> {
        self.expires
    }

    /// The file with our own certificate.
    pub fn certificate(&self) -> Option<&Path> {
        self.tls.cert.as_deref()
    }
}

/// The time by which certificates are judged.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(time::at_least()))
    }
}

fn stamps(tls: &Tls) -> Vec<(PathBuf, Option<SystemTime>)> {
    let key = tls.key.as_ref().and_then(Secret::path);
    [tls.ca.clone(), tls.cert.clone(), key]
        .into_iter()
        .flatten()
        .map(|path| {
            let changed = std::fs::metadata(&path).and_then(|found| found.modified()).ok();
            (path, changed)
        })
        .collect()
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, WireError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| {
                WireError::Files(format!("{} is no certificate of an authority: {error}", path.display()))
            })?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(WireError::Files(
            "this system has no root certificates: install ca-certificates, or set mqtt.tls.ca".to_owned(),
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, WireError> {
    let text = std::fs::read(path)
        .map_err(|error| WireError::Files(format!("the certificate {} can't be read: {error}", path.display())))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(WireError::Files(format!("{} holds no certificate: expected PEM", path.display()))),
    }
}

/// The notAfter of a certificate (RFC 5280, sections 4.1 and 4.1.2.5), since 1970. Of the rest nothing is read: rustls does.
fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let (_, signed, _) = element(certificate)?;
    let (_, mut fields, _) = element(signed)?;
    // A version, which may be missing; the serial number, the algorithm and the issuer before the validity.
    let has_version = element(fields)?.0 == CONTEXT_0;
    for _ in 0..3 + u8::from(has_version) {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, not_after) = element(validity)?;
    match element(not_after)? {
        // Two digits of the year, from 1950 on.
        (UTC_TIME, [a, b, rest @ ..], _) => {
            date(&[if *a < b'5' { b"20" } else { b"19" }, &[*a, *b][..], rest].concat())
        }
        (GENERALIZED_TIME, text, _) => date(text),
        _ => None,
    }
}

/// Tags of DER (X.690, 8.1.2).
const CONTEXT_0: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element in DER (X.690, section 8.1): its tag, its contents, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = bytes else { return None };
    let digits = usize::from(length & 0x7f);
    let (length, rest) = if *length < 0x80 {
        (digits, rest)
    } else {
        let (digits, rest) = rest.split_at_checked(digits).filter(|(digits, _)| digits.len() <= 3)?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

/// A date such as `20270101120000Z`, since 1970; `None` before.
fn date(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 15 && text.ends_with('Z'))?;
    let part = |at: std::ops::Range<usize>| text.get(at).unwrap_or_default();
    let (day, hour) = ([part(0..4), part(4..6), part(6..8)], [part(8..10), part(10..12), part(12..14)]);
    time::parse(&format!("{}T{}Z", day.join("-"), hour.join(":"))).ok()
}

/// A failed handshake, in words.
pub(super) fn explain(error: &io::Error, wanted: &str) -> WireError {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            return WireError::Tls("the other side ended the TLS handshake: is this a TLS port?".to_owned());
        }
        return WireError::Tls(format!("the TLS handshake failed: {error}"));
    };
    let text = match inner {
        rustls::Error::InvalidCertificate(why) => {
            format!("the broker's certificate is not accepted: {}", fault(why, wanted))
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the broker knows none of the protocols that mqtt.tls.alpn names".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("the broker refused us in TLS: {alert:?}"),
        rustls::Error::InvalidMessage(_) => "the other side does not speak TLS: is this a TLS port?".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    };
    WireError::Tls(text)
}

fn fault(why: &CertificateError, wanted: &str) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("it has expired{}", clock("is ahead"))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("it is not valid yet{}", clock("is behind"))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it is not for the name `{wanted}`")
        }
        CertificateError::UnknownIssuer => {
            "its issuer is not among the trusted ones (mqtt.tls.ca, or the system's roots)".to_owned()
        }
        CertificateError::Revoked => "it was revoked".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What the clock has to do with it, where it is not set: a person must see to it, and the rest comes by itself.
fn clock(fault: &str) -> String {
    let now = time::now();
    if now.synced {
        return String::new();
    }
    // The day is enough, and the text stays the same from attempt to attempt.
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + now.wall).to_string();
    let date = time.split('T').next().unwrap_or_default();
    format!(
        ", or this board's clock {fault}, which is not set (it shows {date}): see to the time service (NTP); the link \
         is tried again as soon as the clock is set"
    )
}

/// Why reading from the broker failed. In TLS 1.3 a refused client certificate shows only here.
pub(super) fn explain_read(error: &io::Error) -> WireError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => {
            WireError::Tls(format!("the broker refused us in TLS: {alert:?} (our client certificate?)"))
        }
        Some(other) => WireError::Tls(other.to_string()),
        // Our own judgement of a WebSocket, not the broker's farewell.
        None if error.kind() == io::ErrorKind::InvalidData => WireError::Protocol(error.to_string()),
        None => WireError::Closed(error.to_string()),
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_found_with_and_without_a_version() {
        let end = b"\x17\x0d300102030405Z";
        let validity = [&b"\x30\x1e\x17\x0d200102030405Z"[..], end].concat();
        // Serial number 1, and an algorithm and an issuer of which nothing is said.
        let fields = [&b"\x02\x01\x01\x30\x00\x30\x00"[..], &validity].concat();
        for version in [&b""[..], b"\xa0\x03\x02\x01\x02"] {
            let signed = [version, &fields].concat();
            let mut whole =
                vec![0x30, u8::try_from(signed.len() + 2).unwrap(), 0x30, u8::try_from(signed.len()).unwrap()];
            whole.extend(signed);
            // 2030-01-02T03:04:05Z.
            let expected = Some(Duration::from_secs(1_893_553_445));
            assert_eq!(expiry(&CertificateDer::from(whole.clone())), expected);
            assert!((0..whole.len()).all(|length| expiry(&CertificateDer::from(&whole[..length])).is_none()));
        }
    }
}
