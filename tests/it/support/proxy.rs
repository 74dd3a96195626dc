//! Real proxies, each on a port and in a folder of its own.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Killed, free_port, wait};

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    _child: Killed,
    pub(crate) port: u16,
}

impl Proxy {
    /// tinyproxy, which lets who has this login (`user password`; empty: anybody) to this port.
    pub(crate) fn http(folder: &Path, login: &str, to: u16) -> Self {
        let port = free_port();
        let auth = if login.is_empty() { String::new() } else { format!("BasicAuth {login}\n") };
        let config = folder.join("tinyproxy.conf");
        let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nConnectPort {to}\n{auth}");
        fs::write(&config, text).unwrap();
        Self::run(port, "tinyproxy", &["-d", "-c", config.to_str().unwrap()])
    }

    /// squid, the same without a login.
    pub(crate) fn squid(folder: &Path, to: u16) -> Self {
        let port = free_port();
        let folder = folder.join("squid");
        fs::create_dir(&folder).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&folder, mode).unwrap();
        let place = folder.display();
        let text = format!(
            "http_port 127.0.0.1:{port}\nacl there port {to}\nhttp_access allow there\nhttp_access deny all\n\
             cache deny all\naccess_log none\ncache_log {place}/cache.log\npid_filename {place}/pid\n\
             coredump_dir {place}\nshutdown_lifetime 0 seconds\nmax_filedescriptors 256\npinger_enable off\n"
        );
        let config = folder.join("squid.conf");
        fs::write(&config, text).unwrap();
        Self::run(port, "/usr/sbin/squid", &["-N", "-f", config.to_str().unwrap(), "-n", &format!("s{port}")])
    }

    /// microsocks, which lets who has this login (`user password`; empty: anybody) anywhere.
    pub(crate) fn socks(login: &str) -> Self {
        let port = free_port();
        let number = port.to_string();
        let mut words = vec!["-i", "127.0.0.1", "-p", &number];
        if let Some((user, password)) = login.split_once(' ') {
            words.extend(["-u", user, "-P", password]);
        }
        Self::run(port, "microsocks", &words)
    }

    fn run(port: u16, program: &str, words: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let package = program.rsplit('/').next().unwrap();
        let child = command.spawn().unwrap_or_else(|_| panic!("{program} is installed (apt-get install {package})"));
        let proxy = Proxy { _child: Killed(child), port };
        wait::until(&format!("{package} to listen"), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        proxy
    }
}
