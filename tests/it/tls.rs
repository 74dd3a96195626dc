//! TLS is verified, or it does not connect.

use std::path::Path;
use std::process::Command;

use crate::support::{Agent, Authority, Identity, Mosquitto, Observer, Pty, publish_with, until};

/// Only what a gateway needs, as the README says it.
const ACL: &str = "\
user gateway
topic write sluicegate/g/#
topic read sluicegate/g/+/set
topic read sluicegate/g/+/+/set
topic read sluicegate/g/status
topic read sluicegate/g/info

user app
topic read #
topic write sluicegate/g/+/set
topic write sluicegate/g/+/+/set
topic write observer/#
";

struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    client: Identity,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "ca");
        let client = authority.client(folder.path(), "client");
        std::fs::write(folder.path().join("password"), "right\n").unwrap();
        Site { folder, authority, client }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A broker that asks for a client certificate, a password, and keeps to the ACL.
    fn broker(&self, server: &Identity) -> Mosquitto {
        self.broker_with(server, "")
    }

    fn broker_with(&self, server: &Identity, more: &str) -> Mosquitto {
        self.broker_by(server, more, ACL)
    }

    fn broker_by(&self, server: &Identity, more: &str, rights: &str) -> Mosquitto {
        let passwords = self.path().join("passwords");
        for (flags, user, password) in [(&["-c", "-b"][..], "gateway", "right"), (&["-b"][..], "app", "app")] {
            let made = Command::new("mosquitto_passwd").args(flags).arg(&passwords).args([user, password]).output();
            assert!(made.unwrap().status.success());
        }
        let acl = self.path().join("acl");
        std::fs::write(&acl, rights).unwrap();
        for file in [&passwords, &acl, &server.key, &server.cert, &self.authority.file] {
            // mosquitto gives up root before it reads them.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            std::fs::set_permissions(file, mode).unwrap();
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.path(), mode).unwrap();
        let lines = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nallow_anonymous false\n\
             password_file {}\nacl_file {}\n{more}",
            self.authority.file.display(),
            server.cert.display(),
            server.key.display(),
            passwords.display(),
            acl.display()
        );
        Mosquitto::with(self.path(), &lines)
    }

    fn server(&self, names: &[&str], until: i32) -> Identity {
        self.authority.server(self.path(), "server", names, until)
    }

    fn config(&self, port: u16, version: &str, more: &str) -> String {
        let Identity { cert, key } = &self.client;
        format!(
            r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtts://localhost:{port}"
version = "{version}"
username = "gateway"
password = {{ file = "{password}" }}
tls = {{ ca = "{ca}", cert = "{cert}", key = {{ file = "{key}" }} }}
{more}"#,
            password = self.path().join("password").display(),
            ca = self.authority.file.display(),
            cert = cert.display(),
            key = key.display(),
        )
    }

    fn login(&self) -> Vec<String> {
        let Identity { cert, key } = &self.client;
        [
            "-u",
            "app",
            "-P",
            "app",
            "-h",
            "localhost",
            "--cafile",
            self.authority.file.to_str().unwrap(),
            "--cert",
            cert.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

fn meter(name: &str, port: &str) -> String {
    format!(
        r#"
[device.{name}]
kind = "serial"
port = "{port}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "json" }}
[device.{name}.point.count]
from = "/n"
type = "int"
[device.{name}.point.valve]
from = "/valve"
type = "int"
min = 0
max = 100
write = "VALVE {{value}}\r\n"
"#
    )
}

#[test]
fn readings_and_commands_pass_through_tls_password_and_acl() {
    for version in ["3.1.1", "5"] {
        let site = Site::new();
        let broker = site.broker(&site.server(&["localhost"], 2099));
        let login = site.login();
        let mut arguments = vec!["-t", "#"];
        arguments.extend(login.iter().map(String::as_str));
        let observer = Observer::with(broker.port, &arguments);
        let mut ptys: Vec<Pty> = ["a", "b", "c"].iter().map(|name| Pty::new(&site.path().join(name))).collect();
        let devices: String = ["a", "b", "c"].iter().zip(&ptys).map(|(name, pty)| meter(name, pty.path())).collect();
        let config = site.config(broker.port, version, &devices);
        let _agent = Agent::start(site.path(), &config);
        for name in ["a", "b", "c"] {
            observer.wait_payload(&format!("sluicegate/g/{name}/status"), "online");
        }
        const COUNT: i64 = 200;
        for n in 1..=COUNT {
            for pty in &mut ptys {
                pty.say(format!("{{\"n\":{n}}}\n").as_bytes());
            }
        }
        for name in ["a", "b", "c"] {
            let topic = format!("sluicegate/g/{name}/count");
            let values = || -> Vec<i64> {
                let all = observer.all();
                let of_topic = all.iter().filter(|heard| heard.topic == topic).map(crate::support::Heard::json);
                of_topic.filter(|json| json["repeat"] != true).filter_map(|json| json["value"].as_i64()).collect()
            };
            until("all readings", || values().len() >= usize::try_from(COUNT).unwrap());
            assert_eq!(values(), (1..=COUNT).collect::<Vec<_>>(), "device {name}");
        }
        let login: Vec<&str> = login.iter().map(String::as_str).collect();
        let set = "sluicegate/g/b/valve/set";
        let sent = publish_with(broker.port, set, r#"{"value":42,"id":"c-42"}"#, &login);
        assert!(sent.status.success(), "{sent:?}");
        ptys[1].hear("VALVE 42\r\n");
        let outcome = observer.wait_json("sluicegate/g/b/valve/outcome", "id", "c-42");
        assert_eq!((&outcome["outcome"], &outcome["value"]), (&"done".into(), &42.into()));
        let checked = Agent::ask(site.path(), &["check", "--broker", "--devices"]);
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(text.contains("read back what was published; our certificate is valid until 2099"), "{text}");
        let health = observer.wait("health", |heard| heard.topic == "sluicegate/g/health").json();
        assert!(health["certificate_days"].as_i64().unwrap() > 20_000, "{health}");
    }
}

/// What each target is tested with, under an emulator that knows no serial ports.
#[test]
fn a_simulated_device_speaks_through_tls_and_has_a_last_will() {
    for version in ["3.1.1", "5"] {
        let site = Site::new();
        let broker = site.broker(&site.server(&["localhost"], 2099));
        let login = site.login();
        let login: Vec<&str> = login.iter().map(String::as_str).collect();
        let observer = Observer::with(broker.port, &[&["-t", "#"][..], &login].concat());
        let device = "[device.plant]\nkind = \"sim\"\n[device.plant.point]\npump = { wave = \"switch\" }\n\
                      count = { wave = \"counter\", every = \"50ms\" }\n";
        let mut agent = Agent::start(site.path(), &site.config(broker.port, version, device));
        observer.wait_payload("sluicegate/g/plant/status", "online");
        observer.wait_json("sluicegate/g/plant/count", "value", 5);
        let sent = publish_with(broker.port, "sluicegate/g/plant/pump/set", r#"{"value":true,"id":"c-1"}"#, &login);
        assert!(sent.status.success(), "{sent:?}");
        let outcome = observer.wait_json("sluicegate/g/plant/pump/outcome", "id", "c-1");
        assert_eq!((&outcome["outcome"], &outcome["value"]), (&"done".into(), &true.into()));
        let pump = observer.wait_json("sluicegate/g/plant/pump", "value", true);
        assert_eq!(pump["cause"], "command:c-1");
        agent.kill();
        observer.wait_payload("sluicegate/g/status", "offline");
    }
}

#[test]
fn certificates_and_passwords_that_were_replaced_are_taken_by_a_reload() {
    let site = Site::new();
    let broker = site.broker(&site.server(&["localhost"], 2099));
    let mut agent = Agent::start(site.path(), &site.config(broker.port, "3.1.1", ""));
    let connections = || broker.log().matches("New client connected").count();
    until("the first connection", || connections() == 1);
    agent.wait_log("link to mqtts://localhost");
    let reload = || {
        let output = Agent::ask(site.path(), &["reload"]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let replaced = (Some(0), "[mqtt]: the files that it names were replaced\n".to_owned());
    let nothing = (Some(0), "nothing changed\n".to_owned());
    assert_eq!(reload(), nothing);
    // The same once more, as a renewal that was not due writes it.
    std::fs::write(site.path().join("password"), "right\n").unwrap();
    assert_eq!(reload(), nothing);

    // Half a renewal: a good link is not given up for it.
    let Identity { cert, .. } = &site.client;
    let good = std::fs::read(cert).unwrap();
    std::fs::write(cert, &good[..good.len() / 2]).unwrap();
    let (code, said) = reload();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.starts_with(&format!("mqtt: {} holds no certificate", cert.display())), "{said}");
    std::fs::write(cert, &good).unwrap();
    assert_eq!(reload(), nothing);
    assert_eq!(connections(), 1);

    site.authority.client(site.path(), "client");
    assert_ne!(std::fs::read(cert).unwrap(), good);
    assert_eq!(reload(), replaced);
    until("a connection with the new certificate", || connections() == 2);
    std::fs::write(site.path().join("password"), "right").unwrap();
    assert_eq!(reload(), replaced);
    until("a connection with the new password", || connections() == 3);
    assert_eq!(broker.log().matches("Client g disconnected.").count(), 2, "{}", broker.log());
    assert!(!agent.log().contains("link lost"), "{}", agent.log());
    assert!(agent.stop().success());
}

#[test]
fn a_certificate_that_ends_soon_is_a_problem_until_it_is_renewed() {
    let site = Site::new();
    let broker = site.broker(&site.server(&["localhost"], 2099));
    let login = site.login();
    let login: Vec<&str> = login.iter().map(String::as_str).collect();
    let observer = Observer::with(broker.port, &[&["-t", "#"][..], &login].concat());
    let Identity { cert, .. } = site.authority.client_for_days(site.path(), "client", 29);
    let mut agent = Agent::start(site.path(), &site.config(broker.port, "3.1.1", ""));
    let said = observer.wait("the problem", |heard| {
        heard.topic == "sluicegate/g/problem" && heard.payload.contains(r#""code":"certificate""#)
    });
    let expected = format!("the certificate {} is valid until ", cert.display());
    assert_eq!(said.json()[0]["text"].as_str().map(|text| text.starts_with(&expected)), Some(true), "{said:?}");
    site.authority.client_for_days(site.path(), "client", 31);
    observer.clear();
    assert!(Agent::ask(site.path(), &["reload"]).status.success());
    observer.wait_payload("sluicegate/g/problem", "[]");
    assert!(agent.stop().success());
}

/// Starts an agent that must not get through, and checks what it says and that the broker never had it as a client.
fn refused(site: &Site, broker: &Mosquitto, config: &str, expected: &str) {
    let agent = Agent::start(site.path(), config);
    agent.wait_log(expected);
    assert!(!agent.log().contains("link to mqtts://localhost"), "it connected: {}", agent.log());
    let accepted = broker.log().lines().any(|line| line.contains("New client connected") && line.contains(" as g "));
    assert!(!accepted, "{}", broker.log());
}

#[test]
fn a_broker_of_another_authority_is_refused() {
    let site = Site::new();
    let broker = site.broker(&site.server(&["localhost"], 2099));
    let other = Authority::new(site.path(), "other");
    let config = site.config(broker.port, "3.1.1", "").replace("/ca.pem", "/other.pem");
    assert!(config.contains(other.file.to_str().unwrap()));
    refused(&site, &broker, &config, "the broker's certificate is not accepted: its issuer is not among the trusted");
}

#[test]
fn a_broker_of_another_name_is_refused() {
    let site = Site::new();
    let broker = site.broker(&site.server(&["broker.example.com"], 2099));
    let config = site.config(broker.port, "5", "");
    refused(&site, &broker, &config, "the broker's certificate is not accepted: it is not for the name `localhost`");
}

#[test]
fn an_expired_broker_is_refused() {
    let site = Site::new();
    let broker = site.broker(&site.server(&["localhost"], 2020));
    let config = site.config(broker.port, "3.1.1", "");
    refused(&site, &broker, &config, "the broker's certificate is not accepted: it has expired");
}

#[test]
fn a_wrong_password_is_a_clear_error() {
    for (version, expected) in
        [("3.1.1", "the broker refused the connection: "), ("5", "the broker refused the connection: ")]
    {
        let site = Site::new();
        let broker = site.broker(&site.server(&["localhost"], 2099));
        std::fs::write(site.path().join("password"), "wrong\n").unwrap();
        let config = site.config(broker.port, version, "");
        refused(&site, &broker, &config, expected);
        let checked = Agent::ask(site.path(), &["check", "--broker"]);
        assert_eq!(checked.status.code(), Some(69), "{checked:?}");
    }
}

/// A broker may grant a subscription, and keep back what is published there.
#[test]
fn check_names_the_commands_that_the_broker_keeps_back() {
    for (right, topic) in [
        ("topic read sluicegate/g/+/set\n", "sluicegate/g/command/set"),
        ("topic read sluicegate/g/+/+/set\n", "sluicegate/g/command/command/set"),
    ] {
        let site = Site::new();
        let broker = site.broker_by(&site.server(&["localhost"], 2099), "", &ACL.replacen(right, "", 1));
        Agent::configure(site.path(), &site.config(broker.port, "3.1.1", ""));
        let checked = Agent::ask(site.path(), &["check", "--broker"]);
        assert_eq!(checked.status.code(), Some(69), "without `{right}`: {checked:?}");
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(text.contains(&format!("what was published to {topic} ")), "{text}");
    }
}

#[test]
fn a_missing_client_certificate_is_a_clear_error() {
    let site = Site::new();
    let broker = site.broker(&site.server(&["localhost"], 2099));
    let with = site.config(broker.port, "3.1.1", "");
    let config: String = with
        .lines()
        .map(|line| match line.strip_prefix("tls = ") {
            Some(_) => format!("tls = {{ ca = \"{}\" }}\n", site.authority.file.display()),
            None => format!("{line}\n"),
        })
        .collect();
    refused(&site, &broker, &config, "the broker refused us in TLS");
}

#[test]
fn a_client_key_may_be_pkcs8_pkcs1_or_sec1_and_tls_1_2_or_1_3() {
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl").args(arguments).output().expect("openssl is installed");
        assert!(made.status.success(), "{made:?}");
    };
    for (form, algorithm, begins, tls) in [
        ("pkcs8", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..], "-----BEGIN PRIVATE KEY-----", "tlsv1.2"),
        ("pkcs1", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..], "-----BEGIN RSA PRIVATE KEY-----", "tlsv1.3"),
        ("sec1", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], "-----BEGIN EC PRIVATE KEY-----", "tlsv1.3"),
    ] {
        let mut site = Site::new();
        let pkcs8 = site.path().join("pkcs8.pem");
        let key = site.path().join("form.pem");
        let (pkcs8_text, key_text) = (pkcs8.to_str().unwrap(), key.to_str().unwrap());
        openssl(&[&["genpkey", "-algorithm"], algorithm, &["-out", pkcs8_text]].concat());
        match form {
            "pkcs8" => drop(std::fs::copy(&pkcs8, &key).unwrap()),
            "pkcs1" => openssl(&["rsa", "-traditional", "-in", pkcs8_text, "-out", key_text]),
            _ => openssl(&["ec", "-in", pkcs8_text, "-out", key_text]),
        }
        assert!(std::fs::read_to_string(&key).unwrap().contains(begins), "{form}");
        site.client = site.authority.client_with_key(site.path(), "other", &std::fs::read_to_string(&pkcs8).unwrap());
        site.client.key = key;
        let broker = site.broker_with(&site.server(&["localhost"], 2099), &format!("tls_version {tls}\n"));
        let agent = Agent::start(site.path(), &site.config(broker.port, "3.1.1", ""));
        agent.wait_log(&format!("link to mqtts://localhost:{} up", broker.port));
        eprintln!("{form} by {tls}: connected");
    }
}
