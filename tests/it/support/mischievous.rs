//! The demo's broker, which misbehaves on demand, on a thread of its own.

use tokio::runtime::Runtime;

use super::demo_broker::{Broker, Journal, Limits, Mischief, Settings};

/// A running broker that can be asked to misbehave.
#[derive(Debug)]
pub(crate) struct Mischievous {
    pub(crate) port: u16,
    // Ends before its runtime does.
    broker: Broker,
    _runtime: Runtime,
}

impl Mischievous {
    /// A well-behaved one.
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    /// With these limits.
    pub(crate) fn with(limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let settings = Settings { port: 0, limits, journal: true };
        let broker = runtime.block_on(Broker::start(settings)).unwrap();
        Mischievous { port: broker.port(), broker, _runtime: runtime }
    }

    /// Misbehaves from now on.
    pub(crate) fn misbehave(&self, mischief: Mischief) {
        self.broker.misbehave(mischief);
    }

    /// What happened so far.
    pub(crate) fn journal(&self) -> Journal {
        self.broker.journal()
    }
}
