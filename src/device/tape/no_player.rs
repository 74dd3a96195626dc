//! In the place of the player, where a build leaves the desk out: there is none, ever.

use tokio::time::Instant;

use crate::model::Timestamp;

/// None.
#[derive(Debug)]
pub enum Player {}

impl Player {
    pub(in crate::device) async fn opened(&self) {
        match *self {}
    }

    pub(in crate::device) async fn read(&self, _: &mut [u8]) -> (usize, Timestamp) {
        match *self {}
    }

    pub(in crate::device) async fn write(&self, _: &[u8]) {
        match *self {}
    }

    pub(in crate::device) fn next_sent(&self) -> Option<(Vec<u8>, Instant)> {
        match *self {}
    }

    pub(in crate::device) async fn clear(&self) {
        match *self {}
    }

    pub(in crate::device) async fn clear_of_writes(&self) {
        match *self {}
    }
}
