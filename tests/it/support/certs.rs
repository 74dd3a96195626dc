//! Certificates, made anew for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// An authority that signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
}

/// A certificate and its key, in files.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A new one, whose certificate stands in `<name>.pem`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, certificate.pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), file }
    }

    /// A certificate for a broker under these names, valid until the end of this year.
    pub(crate) fn server(&self, folder: &Path, file: &str, names: &[&str], until: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(folder, file, names, ExtendedKeyUsagePurpose::ServerAuth, until)
    }

    /// A certificate for a client.
    pub(crate) fn client(&self, folder: &Path, name: &str) -> Identity {
        self.sign(folder, name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, 2099)
    }

    /// A certificate for a client that is valid for so many days more.
    #[expect(clippy::disallowed_methods, reason = "this machine's clock is the broker's as well")]
    pub(crate) fn client_for_days(&self, folder: &Path, name: &str, days: u64) -> Identity {
        let end = SystemTime::now() + Duration::from_secs(days * 24 * 3600);
        let date = humantime::format_rfc3339_seconds(end).to_string();
        let [year, month, day]: [u32; 3] =
            date.split(['-', 'T']).take(3).map(|part| part.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap();
        let date = (year.try_into().unwrap(), month.try_into().unwrap(), day.try_into().unwrap());
        let key = KeyPair::generate().unwrap();
        self.sign_key(folder, name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, date, &key)
    }

    /// A certificate for a client that has a key (PEM, PKCS#8) already.
    pub(crate) fn client_with_key(&self, folder: &Path, name: &str, key: &str) -> Identity {
        let key = KeyPair::from_pem(key).unwrap();
        self.sign_key(folder, name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, (2099, 12, 31), &key)
    }

    fn sign(
        &self,
        folder: &Path,
        name: &str,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
        until: i32,
    ) -> Identity {
        self.sign_key(folder, name, names, usage, (until, 12, 31), &KeyPair::generate().unwrap())
    }

    fn sign_key(
        &self,
        folder: &Path,
        name: &str,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
        (year, month, day): (i32, u8, u8),
        key: &KeyPair,
    ) -> Identity {
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        let identity = Identity { cert: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
        fs::write(&identity.cert, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}
