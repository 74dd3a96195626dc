//! Which requests read which points: neighbours together, each point once. Pure functions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pdu::{Request, Table};

/// Where a point stands, and how often it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) table: Table,
    pub(super) address: u16,
    /// Registers, or bits.
    pub(super) count: u16,
    pub(super) every: Duration,
}

/// How far requests may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Registers between two points that are read along, and thrown away.
    pub(super) gap: u16,
    /// Registers in one request.
    pub(super) max_registers: u16,
}

/// One request, and the points that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) table: Table,
    pub(super) address: u16,
    pub(super) count: u16,
    pub(super) every: Duration,
    /// By their places in the list of spots, in the order of their addresses.
    pub(super) points: Vec<usize>,
}

/// As many bits as fit where one register does.
const BITS: u16 = 16;

/// The requests that read these spots.
pub(super) fn blocks(spots: &[Option<Spot>], limits: Limits) -> Vec<Block> {
    let mut groups: BTreeMap<(Table, Duration), Vec<(usize, Spot)>> = BTreeMap::new();
    for (point, spot) in spots.iter().enumerate() {
        if let Some(spot) = spot {
            groups.entry((spot.table, spot.every)).or_default().push((point, *spot));
        }
    }
    let mut blocks: Vec<Block> = Vec::new();
    for ((table, _), mut group) in groups {
        group.sort_by_key(|(_, spot)| spot.address);
        let unit = if table.is_bits() { BITS } else { 1 };
        let (gap, most) = (u32::from(limits.gap * unit), u32::from(limits.max_registers * unit));
        let mut open: Option<Block> = None;
        for (point, spot) in group {
            let joined = open.as_mut().is_some_and(|block| block.join(point, spot, gap, most));
            if !joined {
                blocks.extend(open.replace(Block::of(point, spot)));
            }
        }
        blocks.extend(open);
    }
    blocks
}

impl Spot {
    /// What asks for it alone.
    pub(super) fn request(&self) -> Request {
        Request::Read { table: self.table, address: self.address, count: self.count }
    }
}

impl Block {
    fn of(point: usize, spot: Spot) -> Self {
        Block { table: spot.table, address: spot.address, count: spot.count, every: spot.every, points: vec![point] }
    }

    /// Takes a point that begins no earlier, where that keeps within the limits.
    fn join(&mut self, point: usize, spot: Spot, gap: u32, most: u32) -> bool {
        let (start, end) = (u32::from(self.address), u32::from(self.address) + u32::from(self.count));
        let (next, last) = (u32::from(spot.address), u32::from(spot.address) + u32::from(spot.count));
        let count = end.max(last) - start;
        if next > end + gap || count > most {
            return false;
        }
        self.count = u16::try_from(count).unwrap_or(self.count);
        self.points.push(point);
        true
    }

    /// What it asks.
    pub(super) fn request(&self) -> Request {
        Request::Read { table: self.table, address: self.address, count: self.count }
    }

    /// The two halves, each with no more than it needs; `None`: it has but one point.
    pub(super) fn split(&self, spots: &[Option<Spot>]) -> Option<[Block; 2]> {
        let (first, second) = self.points.split_at_checked(self.points.len() / 2)?;
        let half = |points: &[usize]| {
            let mut points = points.iter().filter_map(|point| Some((*point, (*spots.get(*point)?)?)));
            let (point, spot) = points.next()?;
            let mut block = Block::of(point, spot);
            for (point, spot) in points {
                block.join(point, spot, u32::MAX / 2, u32::MAX);
            }
            Some(block)
        };
        Some([half(first)?, half(second)?])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { gap: 8, max_registers: 125 };

    fn spot(table: Table, address: u16, count: u16) -> Option<Spot> {
        Some(Spot { table, address, count, every: Duration::from_secs(1) })
    }

    /// Table, address and count of each request.
    fn asked(spots: &[Option<Spot>], limits: Limits) -> Vec<(Table, u16, u16)> {
        blocks(spots, limits).iter().map(|block| (block.table, block.address, block.count)).collect()
    }

    #[test]
    fn neighbours_are_read_together() {
        use Table::{Coil, Holding, Input};
        for (spots, expected) in [
            (vec![spot(Input, 0, 2), spot(Input, 2, 2)], vec![(Input, 0, 4)]),
            (vec![spot(Input, 10, 2), spot(Input, 0, 2)], vec![(Input, 0, 12)]),
            (vec![spot(Input, 0, 2), spot(Input, 11, 2)], vec![(Input, 0, 2), (Input, 11, 2)]),
            (vec![spot(Input, 0, 2), spot(Holding, 2, 2)], vec![(Holding, 2, 2), (Input, 0, 2)]),
            (
                vec![spot(Input, 0, 120), spot(Input, 120, 5), spot(Input, 125, 1)],
                vec![(Input, 0, 125), (Input, 125, 1)],
            ),
            (vec![spot(Coil, 0, 1), spot(Coil, 129, 1), spot(Coil, 259, 1)], vec![(Coil, 0, 130), (Coil, 259, 1)]),
            (vec![spot(Input, 65535, 1), None, spot(Input, 65534, 2)], vec![(Input, 65534, 2)]),
            (vec![spot(Input, 0, 8), spot(Input, 3, 1), spot(Input, 16, 1)], vec![(Input, 0, 17)]),
        ] {
            assert_eq!(asked(&spots, LIMITS), expected, "{spots:?}");
        }
    }

    #[test]
    fn points_of_another_rate_are_read_apart() {
        let mut slow = spot(Table::Input, 1, 1).unwrap();
        slow.every = Duration::from_secs(60);
        assert_eq!(blocks(&[spot(Table::Input, 0, 1), Some(slow)], LIMITS).len(), 2);
    }

    proptest! {
        #[test]
        fn each_point_is_read_once_and_no_request_is_too_long(
            places in prop::collection::vec((0usize..4, 0u16..400, 1u16..=8, 1u64..3), 0..60),
            gap in 0u16..40,
            max_registers in 8u16..=125,
        ) {
            let tables = [Table::Coil, Table::Discrete, Table::Holding, Table::Input];
            let spots: Vec<Option<Spot>> = places.into_iter().map(|(table, address, count, seconds)| {
                let table = tables[table];
                let count = if table.is_bits() { 1 } else { count };
                Some(Spot { table, address, count, every: Duration::from_secs(seconds) })
            }).collect();
            let found = blocks(&spots, Limits { gap, max_registers });
            let mut read: Vec<usize> = found.iter().flat_map(|block| block.points.clone()).collect();
            read.sort_unstable();
            prop_assert_eq!(read, (0..spots.len()).collect::<Vec<_>>());
            for block in &found {
                let unit = if block.table.is_bits() { 16 } else { 1 };
                prop_assert!(block.count <= max_registers * unit);
                // The plain reference: what each address of the request is for.
                let mut unused = 0;
                for address in block.address..block.address + block.count {
                    let used = block.points.iter().any(|point| {
                        let spot = spots[*point].unwrap();
                        (spot.address..spot.address + spot.count).contains(&address)
                    });
                    unused = if used { 0 } else { unused + 1 };
                    prop_assert!(unused <= gap * unit, "too much is read along");
                }
                prop_assert_eq!(unused, 0, "it ends with a point");
                for point in &block.points {
                    let spot = spots[*point].unwrap();
                    prop_assert!((spot.table, spot.every) == (block.table, block.every));
                    prop_assert!(spot.address >= block.address && spot.address + spot.count <= block.address + block.count);
                }
                // Splitting loses none, down to one.
                let mut parts = vec![block.clone()];
                while let Some(place) = parts.iter().position(|part| part.points.len() > 1) {
                    let part = parts.remove(place);
                    parts.extend(part.split(&spots).unwrap());
                }
                for part in &parts {
                    let spot = spots[part.points[0]].unwrap();
                    prop_assert_eq!((part.address, part.count), (spot.address, spot.count));
                }
                prop_assert_eq!(parts.len(), block.points.len());
            }
        }
    }
}
