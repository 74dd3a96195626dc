//! Who looks at the broker from outside: Debian's mosquitto_sub and mosquitto_pub.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::{Killed, wait};

/// A message at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) retained: bool,
    pub(crate) topic: String,
    pub(crate) payload: String,
}

impl Heard {
    /// The payload as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{}: {}: {error}", self.topic, self.payload))
    }
}

/// Hears everything.
#[derive(Debug)]
pub(crate) struct Observer {
    heard: Arc<Mutex<Vec<Heard>>>,
    child: Killed,
}

impl Observer {
    /// Listens to `#`, and returns once it is subscribed.
    pub(crate) fn start(port: u16) -> Self {
        Self::with(port, &["-t", "#"])
    }

    /// With these arguments of mosquitto_sub.
    pub(crate) fn with(port: u16, arguments: &[&str]) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let observer = Observer { child: listen(port, arguments, &heard), heard };
        observer.wait_subscribed(port, arguments);
        observer
    }

    /// Listens on, after the broker was started again, and keeps what was heard before.
    #[track_caller]
    pub(crate) fn again(mut self, port: u16) -> Self {
        self.listen_again(port);
        self
    }

    /// The same, in place.
    #[track_caller]
    pub(crate) fn listen_again(&mut self, port: u16) {
        self.child = listen(port, &["-t", "#"], &self.heard);
        self.wait_subscribed(port, &[]);
    }

    /// A marker comes back once the subscription stands.
    #[track_caller]
    fn wait_subscribed(&self, port: u16, arguments: &[&str]) {
        let before = self.markers();
        wait::until("the observer to be subscribed", || {
            publish_with(port, "observer/ready", "1", &arguments_of_login(arguments));
            self.markers() > before
        });
    }

    fn markers(&self) -> usize {
        self.heard.lock().unwrap().iter().filter(|heard| heard.topic == "observer/ready").count()
    }

    /// All that was heard so far, without our own markers.
    pub(crate) fn all(&self) -> Vec<Heard> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|heard| !heard.topic.starts_with("observer/")).cloned().collect()
    }

    /// What was heard after the first so many messages, our own markers included.
    pub(crate) fn since(&self, count: usize) -> Vec<Heard> {
        self.heard.lock().unwrap().get(count..).unwrap_or_default().to_vec()
    }

    /// Waits until all that the broker has got by now was heard.
    #[track_caller]
    pub(crate) fn catch_up(&self, port: u16) {
        self.wait_subscribed(port, &[]);
    }

    /// How many messages there were, cheaply.
    pub(crate) fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Forgets what was heard.
    pub(crate) fn clear(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// Waits for a message that fits, and returns the first one.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, fits: impl Fn(&Heard) -> bool) -> Heard {
        wait::until_some(what, || self.heard.lock().unwrap().iter().find(|heard| fits(heard)).cloned())
    }

    /// Waits for this payload on a topic.
    #[track_caller]
    pub(crate) fn wait_payload(&self, topic: &str, payload: &str) -> Heard {
        self.wait(&format!("{topic} {payload}"), |heard| heard.topic == topic && heard.payload == payload)
    }

    /// Waits for JSON on a topic in which this key has this value.
    #[track_caller]
    pub(crate) fn wait_json(&self, topic: &str, key: &str, value: impl Into<serde_json::Value>) -> serde_json::Value {
        let value = value.into();
        let heard = self.wait(&format!("{topic} with {key} = {value}"), |heard| {
            heard.topic == topic
                && serde_json::from_str::<serde_json::Value>(&heard.payload).is_ok_and(|json| json[key] == value)
        });
        heard.json()
    }

    /// The retained messages below a topic, as a newcomer sees them.
    pub(crate) fn retained(port: u16, below: &str) -> std::collections::BTreeMap<String, String> {
        let observer = Observer::with(port, &["-t", below, "-t", "observer/#"]);
        let all = observer.all();
        all.into_iter().filter(|heard| heard.retained).map(|heard| (heard.topic, heard.payload)).collect()
    }
}

/// What of mosquitto_sub's arguments mosquitto_pub needs as well.
fn arguments_of_login<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let login = ["-u", "-P", "--cafile", "--cert", "--key", "-h", "-V"];
    arguments.chunks(2).filter(|pair| pair.first().is_some_and(|key| login.contains(key))).flatten().copied().collect()
}

fn listen(port: u16, arguments: &[&str], heard: &Arc<Mutex<Vec<Heard>>>) -> Killed {
    let mut command = Command::new("mosquitto_sub");
    if !arguments.contains(&"-h") {
        command.args(["-h", "127.0.0.1"]);
    }
    command.args(["-p", &port.to_string(), "-F", "%r %t %x"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().expect("mosquitto_sub is installed (apt-get install mosquitto-clients)");
    let mut child = Killed(child);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut parts = line.splitn(3, ' ');
            let (Some(retained), Some(topic)) = (parts.next(), parts.next()) else { continue };
            let payload = unhex(parts.next().unwrap_or_default());
            heard.lock().unwrap().push(Heard { retained: retained == "1", topic: topic.to_owned(), payload });
        }
    });
    child
}

fn unhex(text: &str) -> String {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Publishes at QoS 1.
pub(crate) fn publish(port: u16, topic: &str, payload: &str) {
    let output = publish_with(port, topic, payload, &[]);
    assert!(output.status.success(), "{output:?}");
}

/// Publishes with more arguments of mosquitto_pub.
pub(crate) fn publish_with(port: u16, topic: &str, payload: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("mosquitto_pub");
    if !arguments.contains(&"-h") {
        command.args(["-h", "127.0.0.1"]);
    }
    command.args(["-p", &port.to_string(), "-q", "1", "-t", topic, "-m", payload]).args(arguments);
    command.stdin(Stdio::null()).output().expect("mosquitto_pub is installed")
}

/// Publishes any bytes at QoS 1, with more arguments of mosquitto_pub.
pub(crate) fn publish_bytes(port: u16, topic: &str, payload: &[u8], arguments: &[&str]) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic]).args(arguments);
    command.arg(if payload.is_empty() { "-n" } else { "-s" }).stdin(Stdio::piped());
    let mut child = command.spawn().expect("mosquitto_pub is installed");
    let mut input = child.stdin.take().unwrap();
    if !payload.is_empty() {
        input.write_all(payload).unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// Publishes these lines at QoS 1, each as a message of its own, as fast as the broker takes them.
pub(crate) fn publish_lines(port: u16, topic: &str, lines: &str) {
    publish_lines_with(port, topic, lines, &[]);
}

/// The same with more arguments of mosquitto_pub.
pub(crate) fn publish_lines_with(port: u16, topic: &str, lines: &str, arguments: &[&str]) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic, "-l"]).args(arguments);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().expect("mosquitto_pub is installed");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
