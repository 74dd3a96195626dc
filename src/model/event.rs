//! What the journal calls the main events: the `MESSAGE_ID=` of each, by which systemd/sluicegate.catalog explains it
//! (`journalctl -x`). Fixed for ever: people filter by them.

macro_rules! events {
    ($($(#[$meaning:meta])* $name:ident = $id:literal;)*) => {
        $($(#[$meaning])* pub const $name: &str = $id;)*

        /// All of them, with their names.
        pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $id)),*];
    };
}

events! {
    /// The gateway has started.
    STARTED = "4ace72a726fa45f48ab766e2fd67b7c1";
    /// It was asked to stop.
    STOPPING = "78bc6947d6b14d77aa20a6cacbd7d52e";
    /// A part of it broke, and it ended.
    BROKEN = "e8e63f6b018548dab4f878085475beab";
    /// One of its loops hangs, and the watchdog is not fed.
    STUCK = "0390019a972a4186900a298d2e1e2fb0";
    /// The config is wrong, and it does not start.
    CONFIG_WRONG = "c9084d1ea60f4f968bd71158509b256d";
    /// Nobody has configured it yet, and it does not start.
    UNCONFIGURED = "72775bba9e38414fb9b0287f3b53e94d";
    /// A new config is wrong, and the old one goes on.
    CONFIG_REFUSED = "8594963d0ce944e78ab3e3a029d97d19";
    /// A new config is in use.
    CONFIG_TAKEN = "bc2ae56afe5e44c4b7576e354c857361";
    /// The broker is connected.
    LINK_UP = "7978e2bf68ba4cd1855e855187af094d";
    /// The broker is not connected any more.
    LINK_LOST = "4a759e0bed734624ac0f41081b70db27";
    /// Somebody else said that this gateway is offline.
    CORRECTED = "d8963b2617b543fda409b60dae9c05b7";
    /// The broker refuses to send commands.
    SUBSCRIPTION_REFUSED = "81a9c599fa7a4a9c9bab7e516a0cefe3";
    /// A device does not answer, or is not there.
    DEVICE_OFFLINE = "a91a3a05916141d4a0b5824ebb4d1aa5";
    /// It is back.
    DEVICE_ONLINE = "7896321b1e0b4df4b6052b46fc17222c";
    /// Outputs were taken over as they were.
    OUTPUTS_KEPT = "ebf2d14bd0b9412dbfa46f243733350b";
    /// Outputs were set to safe, since the process before did not stop cleanly.
    OUTPUTS_SAFE = "919a9dc412064dbfa01cbbff422c3889";
    /// A rule sets an output to its safe value.
    OUTPUT_SAFE = "2a09749c48f6418f9a763c0accc6a958";
    /// An output can't be set to its safe value.
    OUTPUT_UNSAFE = "8e2beefdb7d24ebd8f772a23c8c21204";
    /// A command came to its outcome.
    COMMAND_ENDED = "af7cc1fa8ab44de49d97b1597bd1243c";
    /// A command was refused.
    COMMAND_REJECTED = "504e3f930a69430a89d6bffa098c7576";
    /// The journal of commands can't be written.
    COMMANDS_UNSAFE = "ab771ef026be40c9a9845b05c0c66ae8";
    /// It can again.
    COMMANDS_SAFE = "4f325c6301e34b7db6a96a368011cff5";
    /// What could not be published before the stop is on flash.
    RECORDS_WAIT = "367382f04e9a474c92203157fe343707";
    /// Not all of it could be kept.
    RECORDS_LOST = "c884bf947d92462590dbd15c358dd21d";
    /// Records are dropped at a bound of the queue.
    RECORDS_DROPPED = "a221445340da4f558fc2a566d38bbbb9";
    /// Records on flash can't be read.
    RECORDS_DAMAGED = "e58dd7fedc9b44bea8e0d011992a7ef3";
    /// The broker will not have a record.
    RECORD_REFUSED = "54cff6f44b35413da5f982b2970cd687";
    /// The flash does not take a lane.
    FLASH_FAILED = "c06c4c8d7ea34e61af467dc9d2d72934";
    /// It does again.
    FLASH_BACK = "2bca13ca6fec467a973d4da9b8183e8e";
    /// The state directory can't be written.
    STATE_UNWRITTEN = "02c53fd65b8d49778890ee0ec1e59885";
    /// The clock is not believed.
    CLOCK_DOUBTED = "e3a37dfcbe8445bb8ecddd76eec08f82";
    /// It is.
    CLOCK_BELIEVED = "26bdd5588b0d44ebab078567e86db6d9";
    /// Somebody has set the clock.
    CLOCK_STEPPED = "8f839e5a5d534196b31044143d4c7b6c";
}
