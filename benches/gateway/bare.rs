//! The floor: lines from a port by tokio-serial, to the broker by rumqttc at QoS 1. No names, no numbers, no queue,
//! no presence; what is under way at a cut is lost.

use rumqttc::{AsyncClient, MqttOptions, QoS};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_serial::SerialPortBuilderExt;

/// As long as the gateway's payload for the same line.
const PADDING: &str =
    r#"{"ts":"2026-11-22T10:00:00.123Z","quality":"good","lane":"telemetry","epoch":123456,"seq":12345,"value":"#;

/// PORT PATH WINDOW, until it is killed.
pub(crate) fn run(arguments: &[String]) {
    let [port, path, window] = arguments else { panic!("bare PORT PATH WINDOW") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let window: u16 = window.parse().unwrap();
        let mut options = MqttOptions::new("bare", "127.0.0.1", port.parse().unwrap());
        options.set_inflight(window);
        let (client, mut event_loop) = AsyncClient::new(options, usize::from(window));
        event_loop.network_options.set_tcp_nodelay(true);
        let serial = tokio_serial::new(path, 9600).open_native_async().unwrap();
        let read = async {
            let mut lines = BufReader::new(serial).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(value) = line.strip_prefix("n=") else { continue };
                let payload = format!("{PADDING}{value}}}");
                client.publish("sluicegate/g/meter/n", QoS::AtLeastOnce, false, payload).await.unwrap();
            }
        };
        let poll = async { while event_loop.poll().await.is_ok() {} };
        tokio::join!(read, poll);
    });
}
