//! The real agent, in a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use rustix::process::Signal;

use super::{Killed, signal, wait};

/// Which program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// That of `SLUICEGATE_PROGRAM`, behind the words of an emulator if it needs one; without it, cargo's.
    Tested,
    /// Cargo's, for this machine.
    Here,
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct Agent {
    program: Program,
    child: Option<Killed>,
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Agent {
    /// Writes the config and starts it. `{state}` in the config stands for a state directory in the folder.
    pub(crate) fn start(folder: &Path, config: &str) -> Self {
        Self::start_with(folder, config, &[])
    }

    /// The same with these environment variables.
    pub(crate) fn start_with(folder: &Path, config: &str, environment: &[(&str, &str)]) -> Self {
        write_config(folder, config);
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut agent = Agent { program: Program::Tested, child: None, folder: folder.to_owned(), environment };
        agent.run();
        agent
    }

    /// Starts it again, as this program.
    pub(crate) fn run_as(&mut self, program: Program) {
        self.program = program;
        self.run();
    }

    /// Starts it again.
    pub(crate) fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("agent.log")).unwrap();
        let mut command = command(self.program, &self.folder);
        command.args(["--log", "debug", "run"]).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(Killed(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    /// Leaves it alive and silent.
    pub(crate) fn freeze(&self) {
        signal(&self.child.as_ref().unwrap().0, Signal::STOP);
    }

    /// And on again.
    pub(crate) fn thaw(&self) {
        signal(&self.child.as_ref().unwrap().0, Signal::CONT);
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        signal(&child.0, Signal::TERM);
        wait::until_some("the agent to stop", || child.0.try_wait().unwrap())
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        signal(&self.child.as_ref().unwrap().0, Signal::HUP);
    }

    /// Its exit status, where it ends by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        wait::until_some("the agent to end", || child.0.try_wait().unwrap())
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// Waits for a line of the log with this text.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) {
        wait::until(&format!("`{text}` in the log"), || self.log().contains(text));
    }

    /// What it answers to `status`, without a process for the question. `None`: it does not listen, yet or any more.
    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        let mut socket = UnixStream::connect(self.folder.join("state/control.sock")).ok()?;
        socket.write_all(b"{\"ask\":\"status\"}\n").ok()?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.as_ref().unwrap().0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// CPU that it used, in ticks of 10 ms: the 14th and 15th numbers of `/proc/PID/stat` (proc(5)).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.as_ref().unwrap().0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Runs a command of the program on the same config, to its end.
    pub(crate) fn ask(folder: &Path, arguments: &[&str]) -> Output {
        Self::ask_as(Program::Tested, folder, arguments)
    }

    /// The same of this program.
    pub(crate) fn ask_as(program: Program, folder: &Path, arguments: &[&str]) -> Output {
        command(program, folder).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command of the program until it has printed this, and returns all that it printed.
    pub(crate) fn shown(folder: &Path, arguments: &[&str], text: &str) -> String {
        let mut child =
            Killed(command(Program::Tested, folder).args(arguments).stdout(Stdio::piped()).spawn().unwrap());
        let mut printed = String::new();
        for line in BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok) {
            printed = printed + &line + "\n";
            if line.contains(text) {
                return printed;
            }
        }
        panic!("it ended without `{text}`: {printed}");
    }

    /// Starts a command of the program, with its output to this file and its errors beside; [`signal`] ends it.
    pub(crate) fn begin(folder: &Path, arguments: &[&str], output: &Path) -> Killed {
        let errors = fs::File::create(output.with_extension("errors")).unwrap();
        let output = fs::File::create(output).unwrap();
        let mut command = command(Program::Tested, folder);
        Killed(command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap())
    }

    /// Runs a command of the program, whose output nobody reads; its exit status and errors.
    pub(crate) fn unread(folder: &Path, arguments: &[&str]) -> (ExitStatus, String) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output =
            command(Program::Tested, folder).args(arguments).stdin(Stdio::null()).stdout(writer).output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Writes the config for [`Agent::ask`].
    pub(crate) fn configure(folder: &Path, config: &str) {
        write_config(folder, config);
    }
}

fn write_config(folder: &Path, config: &str) {
    let state = folder.join("state");
    fs::write(folder.join("agent.toml"), config.replace("{state}", state.to_str().unwrap())).unwrap();
}

fn command(program: Program, folder: &Path) -> Command {
    let other = std::env::var("SLUICEGATE_PROGRAM").ok().filter(|_| program == Program::Tested).unwrap_or_default();
    let mut words = other.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or(env!("CARGO_BIN_EXE_sluicegate")));
    command.args(words);
    command.arg("--config").arg(folder.join("agent.toml")).env_remove("RUNTIME_DIRECTORY").env_remove("JOURNAL_STREAM");
    // Whether a time service keeps this machine's clock is its own affair; a test may say otherwise.
    command.env("SLUICEGATE__CLOCK__TRUST", "always");
    command
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent's log:\n{}", self.log().lines().rev().take(60).collect::<Vec<_>>().join("\n"));
        }
    }
}
