//! What the log says of the link.

use std::time::Duration;

use crate::model::{event, time};

/// One line when the link goes, one when it is back, and nothing for each attempt between.
#[derive(Debug, Default)]
pub(super) struct Episode {
    began: Option<Duration>,
    last: String,
}

impl Episode {
    /// The link is away, for this reason.
    pub(super) fn lost(&mut self, why: &str) {
        if self.began.is_none() {
            self.began = Some(time::uptime());
            tracing::warn!(MESSAGE_ID = event::LINK_LOST, "link lost: {why}");
        } else if self.last != why {
            tracing::info!("link still away: {why}");
        }
        why.clone_into(&mut self.last);
    }

    /// It is there.
    pub(super) fn back(&mut self, url: &str) {
        match self.began.take() {
            Some(began) => {
                let away = time::uptime().saturating_sub(began);
                tracing::info!(MESSAGE_ID = event::LINK_UP, "link to {url} back after {:.0} s", away.as_secs_f64());
            }
            None => tracing::info!(MESSAGE_ID = event::LINK_UP, "link to {url} up"),
        }
    }
}
