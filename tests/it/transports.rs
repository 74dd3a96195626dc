//! Every way to a broker keeps the same promises: nothing is lost in kills and cuts, a half-open link is noticed, and a
//! refusal is told in words. Each through the real thing: mosquitto's WebSocket, tinyproxy, squid, microsocks.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use crate::support::{
    Agent, Audit, Authority, Gate, Mosquitto, Observer, Proxy, Pty, free_port, publish, publish_bytes, until,
};

const READINGS: i64 = 4_000;
const KILLS: i64 = 4;
const WINDOW: u16 = 50;

/// What lies between the gateway and the broker.
struct Site {
    folder: tempfile::TempDir,
    broker: Mosquitto,
    gate: Gate,
    /// The keys of `[mqtt]` that lead there.
    mqtt: String,
    _proxy: Option<Proxy>,
}

/// A way: what the broker listens to, and what the gateway is told.
#[derive(Clone, Copy)]
enum Way {
    Tls,
    WebSocket,
    WebSocketTls,
    Http,
    Squid,
    Socks,
}

/// A broker with a listener of this kind beside the plain one, and the keys that lead to that port.
fn site(way: Way) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).unwrap();
    let port = free_port();
    let tls = || {
        let authority = Authority::new(folder.path(), "ca");
        let server = authority.server(folder.path(), "server", &["localhost"], 2099);
        for file in [&server.key, &server.cert] {
            std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        }
        let lines = format!("certfile {}\nkeyfile {}\n", server.cert.display(), server.key.display());
        (lines, format!("tls = {{ ca = \"{}\" }}\n", authority.file.display()))
    };
    let (scheme, lines, keys) = match way {
        Way::Tls => {
            let (lines, keys) = tls();
            ("mqtts", lines, keys)
        }
        Way::WebSocket => ("ws", "protocol websockets\n".to_owned(), String::new()),
        Way::WebSocketTls => {
            let (lines, keys) = tls();
            ("wss", format!("protocol websockets\n{lines}"), keys)
        }
        Way::Http | Way::Squid | Way::Socks => ("mqtt", String::new(), String::new()),
    };
    let broker = Mosquitto::with(
        folder.path(),
        &format!(
            "allow_anonymous true\nmax_inflight_messages 100\nmax_queued_messages 0\n\
             listener {port} 127.0.0.1\n{lines}allow_anonymous true\n"
        ),
    );
    let gate = Gate::to(port);
    let proxy = match way {
        Way::Http => Some((Proxy::http(folder.path(), "gate way", gate.port), "http")),
        Way::Squid => Some((Proxy::squid(folder.path(), gate.port), "http")),
        Way::Socks => Some((Proxy::socks("gate way"), "socks5")),
        Way::Tls | Way::WebSocket | Way::WebSocketTls => None,
    };
    std::fs::write(folder.path().join("password"), "way\n").unwrap();
    let by = proxy.as_ref().map(|(proxy, scheme)| {
        let password = folder.path().join("password");
        format!(
            "proxy = {{ url = \"{scheme}://127.0.0.1:{}\", username = \"gate\", password = {{ file = \"{}\" }} }}\n",
            proxy.port,
            password.display()
        )
    });
    let mqtt = format!("url = \"{scheme}://localhost:{}\"\n{keys}{}", gate.port, by.unwrap_or_default());
    Site { folder, broker, gate, mqtt, _proxy: proxy.map(|(proxy, _)| proxy) }
}

fn config(mqtt: &str, version: &str, pty: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
version = "{version}"
window = {WINDOW}
keep_alive = "5s"
{mqtt}
[queue]
max_memory = "64MiB"
replay = {{ rate = "off" }}
[device.meter]
kind = "serial"
port = "{pty}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.meter.point.count]
from = "n"
type = "int"
[device.meter.point.valve]
from = "valve"
type = "int"
write = "VALVE {{value}}\n"
"#
    )
}

/// A command is answered, then readings at full speed through kills of the broker, cuts of the line, and a silence.
fn keeps_its_promises(way: Way, version: &str) {
    let mut site = site(way);
    let mut pty = Pty::new(&site.folder.path().join("meter"));
    let mut observer = Observer::start(site.broker.port);
    let agent = Agent::start(site.folder.path(), &config(&site.mqtt, version, pty.path()));
    observer.wait_payload("sluicegate/g/meter/status", "online");
    publish(site.broker.port, "sluicegate/g/meter/valve/set", "40");
    pty.hear("VALVE 40\n");

    let topic = "sluicegate/g/meter/count";
    let mut said = 0;
    for kill in 0..=KILLS {
        let until_here = READINGS * (kill + 1) / (KILLS + 1);
        let text = |from: i64, to: i64| (from..=to).map(|n| format!("n={n}\n")).collect::<String>();
        pty.say(text(said + 1, said + 200).as_bytes());
        if kill < KILLS {
            // All of them, so that the window has room for what is then sent into the silence.
            let first = usize::try_from(said + 200).unwrap();
            until("readings to flow", || Audit::of(&observer.all(), topic).values.len() >= first);
            site.gate.deafen();
        }
        pty.say(text(said + 201, until_here).as_bytes());
        said = until_here;
        if kill == KILLS {
            break;
        }
        until("publishes under way", || site.gate.unheard() > 1000);
        let connections = site.gate.connections();
        if kill % 2 == 0 {
            site.broker.kill();
            site.gate.close();
            site.broker.run();
            observer = observer.again(site.broker.port);
        } else {
            site.gate.close();
        }
        site.gate.open();
        until("another connection", || site.gate.connections() > connections);
    }
    let mut audit = Audit::default();
    until("all readings", || {
        audit = Audit::of(&observer.all(), topic);
        audit.values.len() >= usize::try_from(READINGS).unwrap()
    });
    assert_eq!(audit.values, (1..=READINGS).collect());
    assert!(audit.duplicates > 0, "no break came between a publish and its acknowledgement");
    assert!(
        audit.duplicates <= usize::try_from(KILLS).unwrap() * usize::from(WINDOW),
        "{} duplicates",
        audit.duplicates
    );

    // Half open: the line is there, and nobody at its end.
    site.broker.freeze();
    agent.wait_log("link lost: the broker was silent for 7.5 s");
    site.broker.thaw();
    until("online again", || {
        agent.status().is_some_and(|status| status["link"].as_str().is_some_and(|link| link.starts_with("online")))
    });
    drop(agent);
    observer.wait_payload("sluicegate/g/status", "offline");
}

#[test]
fn readings_survive_on_tls() {
    keeps_its_promises(Way::Tls, "3.1.1");
}

#[test]
fn readings_survive_on_websocket() {
    keeps_its_promises(Way::WebSocket, "5");
}

#[test]
fn readings_survive_on_websocket_over_tls() {
    keeps_its_promises(Way::WebSocketTls, "3.1.1");
}

#[test]
fn readings_survive_through_an_http_proxy() {
    keeps_its_promises(Way::Http, "3.1.1");
}

#[test]
fn readings_survive_through_squid() {
    keeps_its_promises(Way::Squid, "5");
}

#[test]
fn readings_survive_through_a_socks_proxy() {
    keeps_its_promises(Way::Socks, "5");
}

/// What an agent with these keys says about why it has no link.
fn refusal(folder: &Path, mqtt: &str, environment: &[(&str, &str)], expected: &str) {
    let config =
        format!("[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nconnect_timeout = \"5s\"\n{mqtt}");
    // What the one before said is not meant.
    drop(std::fs::remove_file(folder.join("agent.log")));
    let agent = Agent::start_with(folder, &config, environment);
    agent.wait_log(expected);
}

#[test]
fn a_proxy_that_refuses_is_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let (port, closed) = (broker.port, free_port());
    let url = format!("url = \"mqtt://localhost:{port}\"\n");
    let http = Proxy::http(folder.path(), "gate way", port);
    let socks = Proxy::socks("gate way");
    let open = Proxy::socks("");
    std::fs::write(folder.path().join("password"), "wrong").unwrap();
    let wrong =
        format!("username = \"gate\", password = {{ file = \"{}\" }}", folder.path().join("password").display());
    for (proxy, expected) in [
        (
            format!("\"http://127.0.0.1:{}\"", http.port),
            "wants to know who comes: set a user name and a password (mqtt.proxy)",
        ),
        (
            format!("{{ url = \"http://127.0.0.1:{}\", {wrong} }}", http.port),
            "does not accept this user name and password",
        ),
        (format!("\"socks5://127.0.0.1:{}\"", socks.port), "wants to know who comes"),
        (
            format!("{{ url = \"socks5://127.0.0.1:{}\", {wrong} }}", socks.port),
            "does not accept this user name and password",
        ),
        (format!("\"http://127.0.0.1:{closed}\""), "no connection to the proxy http://127.0.0.1:"),
        (format!("\"http://127.0.0.1:{}\"", open.port), "ended the connection"),
        (format!("\"socks5://127.0.0.1:{}\"", http.port), "by the proxy socks5://127.0.0.1:"),
    ] {
        refusal(folder.path(), &format!("{url}proxy = {proxy}\n"), &[], expected);
    }
    // A port that its rules do not allow, and one where nobody is.
    let elsewhere = format!("url = \"mqtt://localhost:{closed}\"\n");
    let open_http = Proxy::http(folder.path(), "", port);
    let squid = Proxy::squid(folder.path(), closed);
    for (proxy, expected) in [
        (format!("http://127.0.0.1:{}", open_http.port), "its rules have to allow this port"),
        (format!("http://127.0.0.1:{}", squid.port), "can't reach localhost:"),
        (format!("socks5://127.0.0.1:{}", open.port), "can't reach localhost:"),
    ] {
        refusal(folder.path(), &format!("{elsewhere}proxy = \"{proxy}\"\n"), &[], expected);
    }
}

#[test]
fn the_proxy_of_the_environment_is_used_unless_the_config_says_none() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let proxy = Proxy::socks("gate way");
    let by = format!("socks5://gate:way@127.0.0.1:{}", proxy.port);
    // Only the proxy resolves the name, and says no: nobody else is asked for it.
    let url = format!("url = \"mqtt://broker.invalid:{}\"\n", broker.port);
    let set_by = "(of the variable ALL_PROXY) can't reach broker.invalid:";
    refusal(folder.path(), &url, &[("ALL_PROXY", &by)], set_by);
    refusal(
        folder.path(),
        &format!("{url}proxy = \"none\"\n"),
        &[("ALL_PROXY", &by)],
        "`broker.invalid` can't be resolved",
    );
    let own = format!("url = \"mqtt://localhost:{}\"\n", broker.port);
    refusal(folder.path(), &own, &[("ALL_PROXY", "socks5://127.0.0.1:1")], "link to mqtt://localhost");
}

/// A web server that answers everything so.
fn answers(answer: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap_or(0);
            // The header fields that it wants, told back.
            let sent = String::from_utf8_lossy(&request[..count]).to_lowercase();
            let status = if sent.contains("x-api-key: hunter2") && sent.contains("x-site: g") {
                "HTTP/1.1 418 Teapot\r\n\r\n"
            } else {
                answer
            };
            drop(stream.write_all(status.as_bytes()));
        }
    });
    port
}

/// mosquitto 2.0.11 gives a WebSocket 40 kB a second.
#[test]
fn a_message_that_takes_longer_than_the_longest_silence_passes_a_websocket() {
    let site = site(Way::WebSocket);
    let mut pty = Pty::new(&site.folder.path().join("meter"));
    let observer = Observer::start(site.broker.port);
    let set = "sluicegate/g/meter/valve/set";
    publish_bytes(site.broker.port, set, &vec![b'5'; 600_000], &["-r"]);
    let agent = Agent::start(site.folder.path(), &config(&site.mqtt, "3.1.1", pty.path()));
    observer.wait_payload("sluicegate/g/meter/status", "online");
    publish(site.broker.port, set, "41");
    pty.hear("VALVE 41\n");
    assert_eq!(site.gate.connections(), 1, "{}", agent.log());
}

#[test]
fn a_web_server_without_mqtt_is_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let wrong_path = "answered 404 Not Found: is the path right?";
    for (port, expected) in [
        (answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), wrong_path),
        (answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "it wants other header fields"),
        (answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "is there a WebSocket at this path?"),
        (answers(accepted), "no WebSocket at ws://localhost:"),
        (broker.port, "no WebSocket at ws://localhost:"),
    ] {
        refusal(folder.path(), &format!("url = \"ws://localhost:{port}/ws\"\n"), &[], expected);
    }
    let key = folder.path().join("key");
    std::fs::write(&key, "hunter2\n").unwrap();
    let headers =
        format!("websocket.headers = {{ X-Site = \"{{id}}\", X-Api-Key = {{ file = \"{}\" }} }}", key.display());
    let port = answers("HTTP/1.1 404 Not Found\r\n\r\n");
    let agent_config = format!("url = \"ws://localhost:{port}\"\n{headers}\n");
    refusal(folder.path(), &agent_config, &[], "answered 418");
    assert!(!std::fs::read_to_string(folder.path().join("agent.log")).unwrap().contains("hunter2"));
}

#[test]
fn the_port_of_another_protocol_is_shared_by_alpn() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let server = authority.server(folder.path(), "server", &["localhost"], 2099);
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-alpn", "http/1.1,x-amzn-mqtt-ca", "-accept", &port.to_string()]);
    command.arg("-cert").arg(&server.cert).arg("-key").arg(&server.key);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = crate::support::Killed(command.spawn().unwrap());
    until("openssl to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let keys = |alpn: &str| {
        let ca = authority.file.display();
        format!("url = \"mqtts://localhost:{port}\"\ntls = {{ ca = \"{ca}\", alpn = [\"{alpn}\"] }}\n")
    };
    refusal(folder.path(), &keys("mqtt"), &[], "the broker knows none of the protocols that mqtt.tls.alpn names");
    // It goes on to MQTT, which openssl does not speak.
    refusal(folder.path(), &keys("x-amzn-mqtt-ca"), &[], "the broker closed the connection");
}
